"""What is exact: cost of the einsum dispatch, balance, upcycling."""

from configs.ablations import scales

PAPER = (
    "Lepikhin et al. 2020, arXiv:2006.16668; Zhou et al. 2022, arXiv:2202.09368; "
    "Komatsuzaki et al. 2022, arXiv:2212.05055"
)


def _exact(statement, published, check):
    return {
        "statement": statement,
        "published": published,
        "test": "exact",
        "check": check,
        "settings": scales.EXACT,
    }


CLAIMS = {
    "einsum_cost": _exact(
        "Einsum dispatch costs S/F of the experts' FLOPs: linear in the group's size.",
        "GSEC/GSMEC against EGCHM (GShard, section 3.2)",
        "einsum_cost_law",
    ),
    "expert_choice_balance": _exact(
        "Expert choice is perfectly balanced.",
        "by design (section 3.2)",
        "expert_choice_balance",
    ),
    "upcycling": _exact(
        "An upcycled layer equals its dense parent, where gates are renormalized.",
        "why the paper renormalizes in vision (section 3.1)",
        "upcycled_equals_dense",
    ),
}
