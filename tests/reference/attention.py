"""Rotary positions and attention, a position and a head at a time, in float64."""

import numpy as np

from tests.reference.routing import softmax


def rotate(x, position, base):
    """Su et al. 2021: the pairs (x_i, x_{i + half}) as complex numbers, turned."""
    half = len(x) // 2
    turned = (x[:half] + 1j * x[half:]) * np.exp(
        1j * position * base ** (-np.arange(half) / half)
    )
    return np.concatenate([turned.real, turned.imag])


def attend(
    query,
    key,
    value,
    segment_ids=None,
    *,
    key_segment_ids=None,
    causal=True,
    prefix=None,
    bias=None,
    scale=None,
):
    """Vaswani et al. 2017, equation 1, over the keys that a query sees.

    query [B, L, H, W]; key and value [B, K, Hkv, W], each for H / Hkv heads; prefix
    [B, K]: seen wherever it stands; bias [H, L, K].
    """
    if key_segment_ids is None:
        key_segment_ids = segment_ids
    scale = query.shape[-1] ** -0.5 if scale is None else scale

    def sees(b, i, j):
        same = segment_ids is None or segment_ids[b, i] == key_segment_ids[b, j]
        known = prefix is not None and prefix[b, j]
        return same and (not causal or j <= i or known)

    batch, length, heads, _ = query.shape
    shared = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b in range(batch):
        for i in range(length):
            seen = [j for j in range(key.shape[1]) if sees(b, i, j)]
            for h in range(heads):
                kv = h // shared
                scores = [query[b, i, h] @ key[b, j, kv] * scale for j in seen]
                if bias is not None:
                    scores += bias[h, i, seen]
                for p, j in zip(softmax(np.array(scores)), seen, strict=True):
                    out[b, i, h] += p * value[b, j, kv]
    return out


def switch(x, router, experts, capacity):
    """Fedus et al. 2021, section 2.1, a token at a time; a row is a group.

    x [B, L, D]; router [D, E]; experts (index, token) -> what it makes of the token;
    0 for a token whose best expert has served `capacity` earlier ones.
    """
    out = []
    for row in x:
        served = [0] * router.shape[1]
        for token in row:
            probs = softmax(token @ router)
            best = int(np.argmax(probs))
            gate = probs[best] if served[best] < capacity else 0.0
            served[best] += 1
            out.append(gate * experts(best, token))
    return np.reshape(out, (*x.shape[:2], -1))


def switch_attention(
    x, routers, experts, out, segment_ids, positions, *, heads, capacity, rope_base
):
    """Fedus et al. 2021, appendix A, figure 10: one Switch layer makes a token's
    queries, another one its keys and values.

    routers and experts by `query` and `key_value`, see `switch`; out [H, W, D]. A key
    head's key comes just before its value.
    """
    width = out.shape[1]
    made = {name: switch(x, routers[name], experts[name], capacity) for name in routers}
    query = made["query"].reshape(*x.shape[:2], heads, width)
    pairs = made["key_value"].reshape(*x.shape[:2], -1, 2, width)
    key, value = pairs[..., 0, :].copy(), pairs[..., 1, :]
    for turned in (query, key):
        for b, i, h in np.ndindex(turned.shape[:3]):
            turned[b, i, h] = rotate(turned[b, i, h], positions[b, i], rope_base)
    return np.einsum("blhw,hwd->bld", attend(query, key, value, segment_ids), out)
