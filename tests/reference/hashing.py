"""The hash table, an id at a time, with Python's unbounded integers."""

import math

_WORD = 2**32


def mix(value: int) -> int:
    """MurmurHash3's finalizer."""
    value = (value ^ (value >> 16)) * 0x85EBCA6B % _WORD
    value = (value ^ (value >> 13)) * 0xC2B2AE35 % _WORD
    return value ^ (value >> 16)


def experts_of(token_id: int, salt: int, num_experts: int, num_selected: int):
    """The K experts of one id: a swap-or-not shuffle of its place in its block."""
    block, place = divmod(token_id, num_experts)
    key = mix(salt ^ mix(block))
    rounds = 12 + 2 * math.ceil(math.log2(num_experts)) if num_experts > 1 else 0
    experts = []
    for k in range(num_selected):
        x = (place + k) % num_experts
        for i in range(rounds):
            point = mix((key + 2 * i) % _WORD) % num_experts
            mirror = (point - x) % num_experts
            coin = mix(mix((key + 2 * i + 1) % _WORD) ^ max(x, mirror)) % 2
            x = mirror if coin else x
        experts.append(x)
    return experts
