"""A person sees loss, speed, drops and time left, with and without a terminal."""

import io

import pytest
from rich.console import Console

from moe_jax.training import progress
from moe_jax.training.progress import Progress

METRICS = {"loss/cross_entropy": 2.34567, "router/dropped": 0.0312}


@pytest.fixture
def clock(monkeypatch):
    """Each step takes two seconds."""
    now = [100.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(progress, "time", Clock)
    return now


def run(clock, console, steps=range(1, 11), metrics=METRICS):
    with Progress(0, 10, tokens_per_step=4096, console=console) as display:
        display.message("compiling [the] step")
        for step in steps:
            clock[0] += 2.0
            display.update(step, metrics)
    return console.file.getvalue()


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock):
    lines = run(clock, Console(file=io.StringIO())).splitlines()
    assert lines[0] == "compiling [the] step"
    assert [line.split()[1] for line in lines[1:]] == ["1/10", "6/10", "10/10"]
    assert lines[2] == (
        "step 6/10  loss 2.3457  2.05k tokens/s  dropped 3.1%  0:00:08 left"
    )


def test_terminal_shows_a_bar_with_the_same(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    shown = run(clock, console)
    for part in ("10/10", "loss 2.3457", "2.05k tokens/s", "dropped 3.1%", "left"):
        assert part in shown
    assert "compiling [the] step" in shown


def test_dense_run_shows_no_drops(clock):
    shown = run(clock, Console(file=io.StringIO()), metrics={"loss/cross_entropy": 1.0})
    assert "dropped" not in shown
    assert "loss 1.0000" in shown


def test_other_processes_are_silent(clock, monkeypatch):
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    assert run(clock, Console(file=io.StringIO())) == ""
