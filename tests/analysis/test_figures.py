"""A run's figures: which there are, and that they show what the run recorded."""

import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from moe_jax.analysis import figures, plotting
from moe_jax.analysis.figures import write_figures

PNG = b"\x89PNG\r\n\x1a\n"


def record(workdir, sparse, labels=("validation",), layers=2, experts=4, until=40):
    lines = []
    for step in range(10, until + 1, 10):
        for split in ("train", *labels):
            line = {"step": step, "split": split, "loss/cross_entropy": 3 - step / 40}
            if split != "train":
                line["loss/bits_per_byte"] = 2 * line["loss/cross_entropy"]
            if sparse:
                load = np.full((layers, experts), 1 / experts).tolist()
                line |= {"router/load": load, "router/dropped": 0.1}
            lines.append(json.dumps(line))
    workdir.mkdir(exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are saved."""
    saved = []
    savefig = Figure.savefig

    def keep(figure, *args, **kwargs):
        saved.append(figure)
        savefig(figure, *args, dpi=20, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def test_sparse_run_gets_loss_load_and_drops(tmp_path, drawn):
    record(tmp_path, sparse=True)
    written = write_figures(tmp_path)
    assert [p.name for p in written] == ["loss.png", "expert_load.png", "dropped.png"]
    assert all(p.read_bytes().startswith(PNG) for p in written)
    assert len(drawn) == 3


def test_dense_run_gets_no_router_figures(tmp_path, drawn):
    record(tmp_path, sparse=False)
    assert [path.name for path in write_figures(tmp_path)] == ["loss.png"]


def test_run_without_metrics_gets_no_figures(tmp_path):
    assert write_figures(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_loss_shows_every_split_and_the_gzip_level(tmp_path, drawn):
    record(tmp_path, sparse=False)
    (tmp_path / "summary.json").write_text('{"gzip_bits_per_byte": 3.0}')
    write_figures(tmp_path)
    axes = drawn[0].axes[0]
    train, held_out, gzip = axes.get_lines()
    np.testing.assert_array_equal(train.get_xdata(), [10, 20, 30, 40])
    np.testing.assert_allclose(held_out.get_ydata(), [2.75, 2.5, 2.25, 2.0])
    np.testing.assert_allclose(gzip.get_ydata(), 1.5)  # 2 bits per byte a nat
    (second,) = axes.child_axes
    assert second.get_ylabel() == "bits per byte, held out"
    np.testing.assert_allclose(second.get_ylim(), 2 * np.array(axes.get_ylim()))


def test_several_held_out_sets_have_no_common_bits_per_byte(tmp_path, drawn):
    record(tmp_path, sparse=False, labels=("validation/code", "validation/prose"))
    (tmp_path / "summary.json").write_text('{"gzip_bits_per_byte": 3.0}')
    write_figures(tmp_path)
    axes = drawn[0].axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["training", "held out: code", "held out: prose"]
    assert axes.child_axes == []


def test_load_has_a_panel_for_each_layer_with_its_relative_load(tmp_path, drawn):
    record(tmp_path, sparse=True, layers=3, experts=8)
    write_figures(tmp_path)
    panels = [axes for axes in drawn[1].axes if "layer" in axes.get_title("left")]
    assert len(panels) == 3
    for axes in panels:
        (mesh,) = axes.collections
        np.testing.assert_allclose(mesh.get_array(), np.ones((8, 4)))


@pytest.mark.parametrize(
    ("layers", "panels"), [(1, [0]), (3, [0, 1, 2]), (24, None), (13, None)]
)
def test_deep_models_show_a_dozen_layers_from_first_to_last(layers, panels):
    shown = figures._panels(layers)
    assert shown == (panels or shown)
    assert (shown[0], shown[-1]) == (0, layers - 1)
    assert len(shown) == min(layers, 12)


def test_one_logged_step_is_enough(tmp_path, drawn):
    record(tmp_path, sparse=True, until=10)
    assert len(write_figures(tmp_path)) == 3


def test_diverged_run_is_drawn_as_far_as_it_went(tmp_path, drawn):
    record(tmp_path, sparse=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for split in ("train", "validation"):
            line = {"step": 50, "split": split, "loss/cross_entropy": "nan"}
            line |= {"loss/bits_per_byte": "nan", "router/dropped": "nan"}
            file.write(json.dumps(line) + "\n")
    assert len(write_figures(tmp_path)) == 3


def test_style_ends_with_the_figure(tmp_path):
    before = dict(matplotlib.rcParams)
    with plotting.figure(tmp_path / "f.png") as figure:
        figure.subplots().plot([1, 2])
        assert not matplotlib.rcParams["axes.spines.top"]
    assert dict(matplotlib.rcParams) == before


def test_figures_need_no_pyplot():
    check = "import sys, moe_jax.analysis.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
