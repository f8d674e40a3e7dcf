"""Where the router looks, and how experts are grouped.

Arms:
  top2              a token's features, a linear router (baseline)
  mlp               a router with a hidden layer
  cosine            a cosine router
  hierarchical      two groups of experts, the best of each
  grouped           the best group of two, then its best two
  shared            one shared expert and the best one
  prefix            the mean of the document so far
  sentence          the mean of the document: sees the future
  topology          two nodes, few tokens leave theirs: sees the future

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/structure.py --seeds=5 --workdir=runs/structure
"""

from configs.overrides import router

BASELINE = "top2"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    # Documents whose tokens all want the same experts fit no capacity.
    dropless = {"moe.dispatcher": "dropless"}
    top2 = {**router("topk", 2), **dropless}
    future = {"moe.allow_future": True}
    return {
        "top2": top2,
        "mlp": {**top2, "moe.router_net": "mlp"},
        "cosine": {**top2, "moe.router_net": "cosine"},
        "hierarchical": {**router("hierarchical", 2, groups_per_token=2), **dropless},
        "grouped": {**router("hierarchical", 2, groups_per_token=1), **dropless},
        "shared": {
            **router("topk", 1, gates="raw"),
            **dropless,
            "moe.num_shared_experts": 1,
        },
        "prefix": {**top2, "moe.routing_unit": "prefix"},
        "sentence": {**top2, "moe.routing_unit": "sentence", **future},
        "topology": {**router("topology", 2), **dropless, **future},
    }
