"""The record of a run is valid, complete, and the same however often it was cut."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.training import writers
from moe_jax.training.writers import MetricWriter, read_metrics, read_summary

LOAD = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)


def write_steps(workdir, resume_step, until):
    with MetricWriter(workdir, resume_step) as writer:
        for step in range(resume_step + 1, until + 1):
            writer.write(step, "train", {"loss/total": 1.0 / step})
            if step % 2 == 0:
                writer.write(step, "validation", {"loss/total": 2.0 / step})


def test_values_come_back_as_they_were(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(
            3,
            "train",
            {
                "loss/total": jnp.float32(0.1),
                "loss/half": jnp.bfloat16(0.5),
                "router/load": LOAD,
                "memory/peak_bytes": 2**40,
                "count": np.int64(7),
            },
        )
    assert read_metrics(tmp_path) == [
        {
            "step": 3,
            "split": "train",
            "loss/total": float(np.float32(0.1)),
            "loss/half": 0.5,
            "router/load": [[0.25, 0.75], [0.5, 0.5]],
            "memory/peak_bytes": 2**40,
            "count": 7,
        }
    ]


def test_not_finite_numbers_are_valid_json_and_come_back(tmp_path):
    values = [math.nan, math.inf, -math.inf, 1.0]
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, "train", {"loss/total": math.nan, "router/load": values})
        writer.write_summary({"status": "failed", "loss/total": jnp.float32(jnp.inf)})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for name in ("metrics.jsonl", "summary.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=refuse)
    (line,) = read_metrics(tmp_path)
    assert math.isnan(line["loss/total"])
    np.testing.assert_array_equal(line["router/load"], values)
    assert read_summary(tmp_path) == {"status": "failed", "loss/total": math.inf}


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 40))
def test_resumed_file_equals_one_never_cut(tmp_path_factory, saved, lived, torn):
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    write_steps(whole, 0, 8)
    write_steps(cut, 0, max(saved, lived))
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "split": "train", "loss/total": 0.1}\n'[:torn])
    write_steps(cut, saved, 8)
    assert (cut / "metrics.jsonl").read_bytes() == (
        whole / "metrics.jsonl"
    ).read_bytes()


def test_torn_last_line_is_not_read(tmp_path):
    write_steps(tmp_path, 0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2, 3]


def test_lines_are_on_the_disk_when_written(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, "train", {"loss/total": 1.0})
    assert len(read_metrics(tmp_path)) == 1
    writer.close()


def test_bucket_gets_the_same_file(tmp_path):
    write_steps(tmp_path / "local", 0, 5)
    with MetricWriter(tmp_path / "bucket", 0) as writer:
        writer._remote_text = ""
        for line in read_metrics(tmp_path / "local"):
            writer.write(line.pop("step"), line.pop("split"), line)
    local, bucket = (tmp_path / n / "metrics.jsonl" for n in ("local", "bucket"))
    assert local.read_bytes() == bucket.read_bytes()


def test_no_run_has_no_metrics_and_no_summary(tmp_path):
    assert read_metrics(tmp_path) == []
    assert read_summary(tmp_path) is None


def test_summary_goes_when_the_run_goes_on(tmp_path):
    write_steps(tmp_path, 0, 2)
    with MetricWriter(tmp_path, 2) as writer:
        writer.write_summary({"status": "finished", "step": 2})
    with MetricWriter(tmp_path, 2) as writer:
        assert read_summary(tmp_path) == {"status": "finished", "step": 2}
        writer.write(3, "train", {"loss/total": 1.0})
        assert read_summary(tmp_path) is None


def test_events_hold_scalars_and_loads(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, "train", {"loss/total": 0.5, "router/load": LOAD})
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"train/loss/total", b"train/router/load/layer_1"):
        assert tag in content


@pytest.mark.parametrize("index", [1, 3])
def test_only_process_zero_writes(tmp_path, monkeypatch, index):
    monkeypatch.setattr(writers.jax, "process_index", lambda: index)
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, "train", {"loss/total": 1.0})
        writer.write_summary({"status": "finished"})
    assert list(tmp_path.iterdir()) == []
