"""The dense control of a sparse config.

A comparison of a sparse model with a dense one is only as good as the dense
one's size. ``dense_twin`` replaces every sparse layer by a dense FFN at the
same place of the block pattern, and sparse attention by dense, so that both models
share every other tensor, its initial value and every batch of a seed.
"""

from ml_collections import ConfigDict

MATCHES = ("active_flops", "total_params")


def dense_twin(
    config: ConfigDict, match: str = "active_flops", count_padding: bool = False
) -> ConfigDict:
    """Returns a copy of `config` whose sparse layers are dense FFNs.

    Sparse attention becomes dense attention, whatever `match` is: it has the FLOPs
    and the parameters of one linear expert, and thus matches K = 1 of these alone.

    Args:
      config: any experiment config.
      match: what the two models have in common.
        `active_flops`: the FFN is K times as wide as one expert, so that a token
        meets as many multiplications as in its K experts (the router's own D*E
        are left out). `total_params`: E times as wide as one expert. Shared
        experts count as they are in both.
      count_padding: for `active_flops`, count the slots that exist rather than
        the choices that fill them: the routed width is multiplied by the train
        capacity factor. Dropless experts have no empty slots.

    Raises:
      ValueError: `match` is unknown.
    """
    width = twin_width(config.moe, match, count_padding)
    twin = twin_of(config, width)
    if config.moe.encoder:
        own = {**config.moe, **config.moe.encoder}
        moe = ConfigDict({name: own[name] for name in config.moe})
        pattern = config.model.encoder_pattern or config.model.block_pattern
        twin.model.encoder_pattern = twin_pattern(
            pattern, twin_width(moe, match, count_padding)
        )
    return twin


def twin_width(moe: ConfigDict, match: str, count_padding: bool = False) -> int:
    """Hidden width of the dense FFN that stands in for a sparse layer.

    Args:
      moe: the config's `moe`.
      match, count_padding: see `dense_twin`.
    """
    shared = moe.num_shared_experts * moe.d_ff
    if match == "total_params":
        return moe.num_experts * moe.d_ff + shared
    if match != "active_flops":
        raise ValueError(
            f"match={match!r} is unknown; choose from {', '.join(MATCHES)}"
        )
    width = moe.num_selected_experts * moe.d_ff
    if not count_padding or moe.dispatcher == "dropless":
        return width + shared
    times_k = 1 if moe.capacity_times_k else moe.num_selected_experts
    return round(width * moe.train_capacity_factor / times_k) + shared


def twin_of(config: ConfigDict, width: int) -> ConfigDict:
    """Returns a copy of `config` with dense FFNs of `width` for sparse layers."""
    twin = config.copy_and_resolve_references()
    twin.model.block_pattern = twin_pattern(config.model.block_pattern, width)
    twin.model.encoder_pattern = twin_pattern(config.model.encoder_pattern, width)
    return twin


def twin_pattern(block_pattern: tuple[str, ...], width: int) -> tuple[str, ...]:
    """The block pattern with dense attention, and `dense:width` for sparse FFNs."""
    kinds = (kind.removeprefix("moe_attention+") for kind in block_pattern)
    return tuple(
        "+".join(f"dense:{width}" if ffn == "moe" else ffn for ffn in kind.split("+"))
        for kind in kinds
    )
