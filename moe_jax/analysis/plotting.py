"""One look for every figure: quiet axes, two or three colours, readable small."""

import contextlib
import io
from collections.abc import Iterator

import matplotlib
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, FAINT = "#22272e", "#6b7480", "#e6e9ed"
BLUE, ORANGE, GREEN, PURPLE = "#2b6cb0", "#d9720f", "#2f855a", "#7a4fa3"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
DIVERGING = "RdBu_r"  # below, at and above a reference

_WIDTH_INCHES, _DPI = 8.0, 200  # shown at half size it stays sharp
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@contextlib.contextmanager
def figure(path: epath.PathLike, height: float = 4.0) -> Iterator[Figure]:
    """Yields an empty figure in the house style; on leaving writes it as PNG.

    Nothing global changes: no pyplot, and the style ends with the block.

    Args:
      path: where to write; its folder is made.
      height: in inches; the width is 8, which is about 800 pixels on a page.
    """
    with matplotlib.rc_context(_STYLE):
        drawn = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
        FigureCanvasAgg(drawn)
        yield drawn
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", metadata={"Software": None})
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def step_axis(axes: Axes, last_step: int, max_ticks: int = 6) -> None:
    """Training steps on x, from 0 to the last, at whole numbers in one unit."""
    scale, unit = 1, ""
    if last_step >= 10_000:
        scale, unit = 1_000, "k"
    if last_step >= 10_000_000:
        scale, unit = 1_000_000, "M"
    axes.set_xlim(0, last_step)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=max_ticks, integer=True))
    axes.xaxis.set_major_formatter(
        lambda step, _: f"{step / scale:g}{unit}" if step else "0"
    )
