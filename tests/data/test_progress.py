"""Long work says how far it is, short work says nothing."""

from moe_jax.data import progress as module
from moe_jax.data.progress import progress


def test_a_line_comes_only_after_a_while(capsys, monkeypatch):
    with progress("Packing", total=200) as report:
        report(20, "1 MB")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with progress("Packing", total=200) as report:
        report(50, "2 MB")
    with progress("Reading") as report:
        report(50, "2 MB")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Packing: 25%, 2 MB", "Reading: 2 MB"]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Packing", total=200) as report:
        report(200, "9 MB")
    assert "Packing" in capsys.readouterr().err
