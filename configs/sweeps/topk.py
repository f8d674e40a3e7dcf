"""The top-k family: scores, gates, K, and what becomes of the second choice.

Arms:
  mixtral           softmax, top-2, renormalized (baseline)
  raw               gates as they are (OLMoE)
  sigmoid           sigmoid scores
  sqrtsoftplus      square root of softplus scores
  softmax_topk      softmax over the two chosen logits
  after_drop        renormalized over the choices that got a slot
  threshold         second choice only above 0.2
  random_second     second choice by chance, as in GShard
  random_k          K drawn from 1 to 5 for each token; 5 in evaluation
  top4              four experts a token

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/topk.py --seeds=5 --workdir=runs/topk
"""

from configs.overrides import router

BASELINE = "mixtral"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    most = min(5, config.moe.num_experts)
    return {
        "mixtral": router("topk", 2),
        "raw": router("topk", 2, gates="raw"),
        "sigmoid": router("topk", 2, score_fn="sigmoid"),
        "sqrtsoftplus": router("topk", 2, score_fn="sqrtsoftplus"),
        "softmax_topk": router("topk", 2, gates="softmax_topk"),
        "after_drop": {
            **router("topk", 2, gates="raw"),
            "moe.renormalize_kept": True,
        },
        "threshold": router(
            "topk", 2, train_policy="threshold", eval_policy="threshold", threshold=0.2
        ),
        "random_second": router("topk", 2, train_policy="random", threshold=0.5),
        "random_k": router("topk", most, min_selected=1),
        "top4": router("topk", min(4, config.moe.num_experts)),
    }
