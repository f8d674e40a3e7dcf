"""A whole start of a reproduction, with a stand-in for training."""

import json

import pytest

from moe_jax.claims.plan import plan_table
from moe_jax.claims.record import fields_of, hash_of
from moe_jax.errors import UserError
from tests.claims.conftest import LOWER, with_parent


def record(bench, scale="cpu"):
    folder = bench.root / "results" / "paper.table" / scale
    return json.loads((folder / "results.json").read_text())


def test_a_planted_effect_is_reproduced_and_a_reversed_one_contradicted(bench):
    claims = {"right": LOWER, "wrong": {**LOWER, "direction": "higher"}}
    assert bench.run(bench.table(claims, a=20, b=16)) == 0
    written = record(bench)["claims"]
    assert written["right"]["finding"]["verdict"] == "reproduced"
    assert written["right"]["finding"]["effect"] == pytest.approx(-0.004)
    assert written["wrong"]["finding"]["verdict"] == "contradicted"
    folder = bench.root / "results" / "paper.table" / "cpu"
    report = (folder / "report.md").read_text()
    assert "right: reproduced" in report
    assert "## The paper's numbers" in report
    figure = folder / "figures" / "right.png"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_never_run_again_and_equal_numbers_come_out(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    bench.run(table)
    first, starts = record(bench), bench.starts()
    bench.run(table)
    assert bench.starts() == starts == [1] * 12  # two arms and the control
    assert record(bench)["values"] == first["values"]
    assert record(bench)["claims"] == first["claims"]


def test_the_baseline_is_compared_with_itself_under_other_seeds(bench):
    bench.run(bench.table({"right": LOWER}, a=20, b=16))
    control = record(bench)["control"]
    assert control["n"] == 4
    # The stand-in's seeds differ by a constant: the control must notice.
    assert control["effect"] == pytest.approx(-100.0)
    assert "in doubt" in control["reason"]


def test_a_diverged_arm_makes_its_claim_invalid(bench):
    # 14 diverges at its first start; a run that diverged is not started again.
    table = bench.table({"right": LOWER}, a=20, b=14)
    bench.run(table)
    bench.run(table)
    finding = record(bench)["claims"]["right"]["finding"]
    assert finding["verdict"] == "invalid"
    assert "diverged" in finding["reason"]
    assert set(bench.starts()) == {1}


def test_each_arm_of_a_tuned_table_gets_a_rate_chosen_on_another_seed(bench):
    table = bench.table({"right": LOWER}, tuned=True, num_seeds=3, a=20, b=16)
    plan = plan_table(table, 3, bench.root, bench.fingerprint)
    assert not plan.complete
    assert len(plan.tuning) == 6
    assert plan.deciding == []
    bench.run(table)
    plan = plan_table(table, 3, bench.root, bench.fingerprint)
    assert plan.complete
    deciding = {run.config.seed for run in plan.deciding}
    assert deciding.isdisjoint({run.config.seed for run in plan.tuning})
    assert set(record(bench)["learning_rates"]) == {"a", "b"}


def test_a_child_starts_from_its_parent_of_the_same_seed(bench):
    table = with_parent(bench.table({"r": LOWER}, a=20, b=16), "b", "init_from", "a")
    plan = plan_table(table, 2, bench.root, bench.fingerprint)
    for run in plan.deciding:
        if run.arm == "b":
            (parent,) = run.parents
            assert (parent.arm, parent.seed) == ("a", run.seed)
            assert run.config.init_from == str(parent.workdir)


def test_the_hash_of_a_claim_follows_its_arms(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    other = bench.table({"right": LOWER}, a=20, b=17)
    child = with_parent(table, "b", "init_from", "a")
    hashes = {hash_of(one, "right") for one in (table, other, child)}
    assert len(hashes) == 3


def test_the_hash_of_a_claim_follows_what_its_arms_start_from(bench):
    whole = bench.table({"right": LOWER}, a=20, b=16, parent=12, alone=12)
    table = with_parent(whole, "b", "init_from", "parent")
    before = hash_of(table, "right")
    table.arms["alone"].config.optimizer.learning_rate *= 2
    assert hash_of(table, "right") == before
    table.arms["parent"].config.optimizer.learning_rate *= 2
    assert hash_of(table, "right") != before


def test_a_field_that_came_later_counts_only_where_it_is_not_at_its_default(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    fields = {name for arm in table.arms.values() for name in fields_of(arm.config)}
    assert hash_of(table, "right", fields) == hash_of(table, "right")
    known = fields - {"loss.router_z"}  # as if the hash were older than this field
    kept = hash_of(table, "right", known)
    assert kept != hash_of(table, "right")
    table.arms["b"].config.loss.router_z = 0.5
    assert hash_of(table, "right", known) != kept
    table.arms["b"].config.loss.router_z = 0.0
    assert hash_of(table, "right", known) == kept


def test_a_router_option_that_came_later_counts(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    fields = {name for arm in table.arms.values() for name in fields_of(arm.config)}
    kept = hash_of(table, "right", fields)
    with table.arms["b"].config.unlocked():
        table.arms["b"].config.moe.router_options.threshold = 0.2
    assert hash_of(table, "right", fields) != kept


def test_results_are_kept_where_asked(bench, tmp_path):
    bench.run(bench.table({"right": LOWER}, a=20, b=16), keep=str(tmp_path / "kept"))
    assert (tmp_path / "kept" / "paper.table" / "cpu" / "report.md").exists()


def test_a_figure_of_a_claim_that_has_no_effect_any_more_goes(bench):
    table = bench.table({"right": LOWER, "renamed": LOWER}, a=20, b=16)
    bench.run(table)
    figures = bench.root / "results" / "paper.table" / "cpu" / "figures"
    assert (figures / "renamed.png").exists()
    bench.run(bench.table({"right": LOWER}, a=20, b=16))
    assert [path.name for path in figures.iterdir()] == ["right.png"]


def test_no_seed_is_refused(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    with pytest.raises(UserError, match="--seeds=0"):
        plan_table(table, 0, bench.root, bench.fingerprint)
