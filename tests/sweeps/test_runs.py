"""Keys, plans and the state of runs."""

import json

import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.sweeps import keys, make_sweep, plan_runs, select


def changed(**fields):
    config = base.get_config()
    for name, value in fields.items():
        group, field = name.split("__")
        config[group][field] = value
    return config


def test_the_key_ignores_where_a_run_runs_and_what_it_writes():
    same = changed(mesh__expert=4, train__log_interval=1, data__cache_dir="/x")
    assert keys.run_key(base.get_config(), "f") == keys.run_key(same, "f")


@pytest.mark.parametrize(
    "fields",
    [
        {"moe__num_experts": 4},
        {"train__num_steps": 7},
        {"train__eval_batches": 3},
        {"train__eval_batch_size": 2},
        {"train__batch_size": 8},
    ],
)
def test_the_key_changes_with_what_changes_the_numbers(fields):
    key = keys.run_key(base.get_config(), "f")
    assert keys.run_key(changed(**fields), "f") != key
    assert keys.run_key(base.get_config(), "g") != key


def test_the_key_changes_with_the_seed_and_the_numerics(monkeypatch):
    config = base.get_config()
    key = keys.run_key(config, "f")
    config.seed = 1
    assert keys.run_key(config, "f") != key
    config.seed = 0
    monkeypatch.setattr(keys, "NUMERICS_VERSION", keys.NUMERICS_VERSION + 1)
    assert keys.run_key(config, "f") != key


def test_seeds_are_outermost_and_start_at_the_configs(bench):
    config = base.get_config()
    config.seed = 7
    sweep = make_sweep("s", {"a": {}, "b": {"moe.d_ff": 8}}, "a", config)
    runs = plan_runs(sweep, 2, bench.root, bench.fingerprint)
    order = [("a", 7), ("b", 7), ("a", 8), ("b", 8)]
    assert [(run.arm, run.config.seed) for run in runs] == order
    assert len({run.workdir for run in runs}) == 4
    assert not bench.root.exists()


def test_two_sweeps_of_one_workdir_share_equal_runs(bench):
    first, second = bench.plan(a=16, b=17), bench.plan(c=17)
    assert first[1].workdir == second[0].workdir


def test_arms_that_differ_only_at_run_time_are_refused(bench):
    arms = {"a": {}, "b": {"mesh.expert": 2}}
    sweep = make_sweep("s", arms, "a", base.get_config())
    with pytest.raises(UserError, match="do not change a run's numbers"):
        plan_runs(sweep, 1, bench.root, bench.fingerprint)


def test_no_seeds_are_refused(bench):
    with pytest.raises(UserError, match="--seeds=0"):
        bench.plan(num_seeds=0, a=16)


@pytest.mark.parametrize(
    ("summary", "status"),
    [
        (None, "interrupted"),
        ({"status": "finished", "step": 5}, "finished"),
        ({"status": "finished", "step": 4}, "interrupted"),
        ({"status": "preempted", "step": 4}, "interrupted"),
        ({"status": "failed", "step": 5}, "failed"),
    ],
)
def test_the_status_follows_from_the_runs_folder(bench, summary, status):
    (run,) = bench.plan(a=16)
    assert run.status() == "pending"
    run.workdir.mkdir(parents=True)
    (run.workdir / "config.json").write_text("{}")
    if summary:
        (run.workdir / "summary.json").write_text(json.dumps(summary))
    assert run.status() == status


def test_the_last_step_is_that_of_the_last_whole_line(bench):
    (run,) = bench.plan(a=16)
    assert run.last_step() == 0
    run.workdir.mkdir(parents=True)
    (run.workdir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 3}\n{"st')
    assert run.last_step() == 3


def test_the_filter_searches_arm_names(bench):
    runs = bench.plan(num_seeds=2, wide=16, narrow=17, wider=18)
    assert [run.arm for run in select(runs, "wide")] == ["wide", "wider"] * 2
    assert select(runs, "") == runs
    with pytest.raises(UserError, match="the arms are wide, narrow, wider"):
        select(runs, "tall")
    with pytest.raises(UserError, match="no regular expression"):
        select(runs, "(")


def test_the_key_knows_a_parent_by_its_key_not_by_its_folder():
    here, there = changed(), changed()
    here.init_from, there.init_from = "/here/run", "/there/run"
    parents = {"init_from": "abc"}
    key = keys.run_key(here, "f", parents)
    assert key == keys.run_key(there, "f", parents)
    assert key != keys.run_key(here, "f", {"init_from": "abd"})
    assert key != keys.run_key(changed(), "f")
