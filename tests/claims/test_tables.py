"""The tables that there are: every arm works, every claim can be read."""

import pytest

from moe_jax.claims.exact import CHECKS
from moe_jax.claims.table import load_table, table_names
from moe_jax.errors import UserError
from moe_jax.training.checks import check_config


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("name", table_names())
def test_every_arm_of_every_table_works_at_every_scale(name, scale):
    table = load_table(name, scale)
    assert table.claims
    for arm in table.needed_arms():
        check_config(table.arms[arm].config)
    for claim in table.claims.values():
        assert claim.statement.endswith(".")
        assert claim.published
        assert claim.test != "exact" or claim.check in CHECKS


# Those that count parameters of published sizes are tested in tests/configs.
COUNTS = {
    "switch_parameters",
    "st_moe_parameters",
    "switch_base_sizes",
    "switch_xxl_experts",
}


@pytest.mark.slow
@pytest.mark.parametrize("check", sorted(CHECKS.keys() - COUNTS))
def test_exact_claims_hold_and_say_what_was_measured(check):
    holds, measured = CHECKS[check]()
    assert holds
    assert measured


def test_an_unknown_table_names_those_that_there_are():
    with pytest.raises(UserError, match=r"switch\.table1"):
        load_table("switch.table99", "cpu")


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu"])
def test_who_starts_from_a_run_has_its_vocabulary(scale):
    children = 0
    for name in table_names():
        table = load_table(name, scale)
        for arm in table.arms.values():
            for parent in arm.references.values():
                children += 1
                sources = (arm.config.data, table.arms[parent].config.data)
                assert len({data.source == "synthetic" for data in sources}) == 1, name
                assert len({data.tokenizer for data in sources}) == 1, name
                assert len({data.num_sentinels for data in sources}) == 1, name
    assert children > 0
