"""Switch layers in the feed-forward layers, in attention, and in both (Switch, Table 10).

Arms:
  ffn             each sparse layer of the base config, top-1 (baseline)
  attention       in its place a dense FFN as wide as one expert, and before it sparse
                  attention: experts make queries, and others keys and values
  both            sparse attention and sparse FFN

A token meets the same FLOPs in all of them, but for the routers. Experts of attention
are linear; `--config.moe.attention_experts=ffn` makes them FFNs, which the paper tried, too.
It had 32 experts in float32, where `attention` and `both` were better after as many
steps and 10 and 16 % slower; in bfloat16 (`--config.model.dtype=bfloat16`) both diverged.

Source: Fedus et al. 2021, arXiv:2101.03961, appendix A.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/attention.py --seeds=5 --workdir=runs/attention
"""

from configs import twin
from configs.overrides import router

BASELINE = "ffn"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    switch = router("switch", 1)
    one = config.copy_and_resolve_references()
    one.moe.num_selected_experts = 1
    dense = twin.dense_twin(one).model

    def arm(attention, sparse_ffn):
        patterns = {}
        for field in ("block_pattern", "encoder_pattern"):
            # Where the encoder routes in its own way, its twin has a pattern of its own.
            kinds = (
                config.model[field] or config.model.block_pattern[: len(dense[field])]
            )
            kinds = [kind.removeprefix("moe_attention+") for kind in kinds]
            patterns[f"model.{field}"] = tuple(
                (attention if "moe" in kind.split("+") else "")
                + (kind if sparse_ffn else without)
                for kind, without in zip(kinds, dense[field], strict=True)
            )
        return {**switch, **patterns}

    return {
        "ffn": arm("", sparse_ffn=True),
        "attention": arm("moe_attention+", sparse_ffn=False),
        "both": arm("moe_attention+", sparse_ffn=True),
    }
