"""What a dry run foretells: runs, time, what a budget pays for, what can be found."""

import json

from tests.claims.conftest import LOWER


def keep_other_table(bench, seconds):
    folder = bench.root / "results" / "paper.other" / "cpu"
    folder.mkdir(parents=True)
    record = {"cost": {"seconds_per_run": {"x": seconds}}}
    (folder / "results.json").write_text(json.dumps(record))


def test_nothing_is_written(bench):
    table = bench.table({"right": LOWER}, a=20, b=16)
    assert bench.run(table, dry_run=True) == 0
    assert not bench.root.exists()
    assert "wants 0.002" in bench.output()
    assert "2 arms, 4 seeds: 12 runs, 4 of them the control; 12 left" in bench.output()
    assert "time: not known" in bench.output()


def test_other_tables_tell_the_time_of_a_first_run(bench):
    keep_other_table(bench, seconds=60.0)
    table = bench.table({"right": LOWER}, a=20, b=16)
    bench.run(table, dry_run=True, parallel=2, budget=7200.0)
    assert "about 6 min, 2 at a time, if" in bench.output()  # 12 runs
    assert "--budget" not in bench.output()


def test_a_budget_that_is_too_small_says_how_many_seeds_it_pays_for(bench):
    keep_other_table(bench, seconds=60.0)
    table = bench.table({"right": LOWER}, a=20, b=16)
    bench.run(table, dry_run=True, budget=301.0)  # 5 runs: seeds 0 and 1, half of 2
    assert "about 2 of 4 seeds" in bench.output()


def test_runs_that_follow_the_tuning_are_counted(bench):
    keep_other_table(bench, seconds=60.0)
    table = bench.table({"right": LOWER}, tuned=True, a=20, b=16)
    bench.run(table, dry_run=True, budget=601.0)
    # 6 of tuning; then 2 arms and the control with 4 seeds. 4 of 10 runs decide.
    assert "18 runs, 4 of them the control, 6 to choose" in bench.output()
    assert "18 left" in bench.output()
    assert "about 18 min" in bench.output()
    assert "about 2 of 4 seeds" in bench.output()


def test_the_detectable_effect_is_that_of_the_seeds_paid_for(bench):
    table = bench.table({"right": LOWER}, num_seeds=8, a=20, b=16)
    bench.run(table, num_seeds=4)
    path = next(bench.root.glob("results/*/*/results.json"))
    record = json.loads(path.read_text())
    record["cost"]["seconds_per_run"] = {"a": 60.0, "b": 60.0}
    noisy = {"0": 0.0, "1": 0.2, "2": 0.0, "3": 0.2}
    record["claims"]["right"]["finding"]["per_seed"] = noisy
    path.write_text(json.dumps(record))
    bench.run(table, dry_run=True, budget=241.0)  # 4 more runs: seeds 4 and 5
    assert "with 6 seeds" in bench.output()
    assert "that is more than --budget=4 min" in bench.output()
