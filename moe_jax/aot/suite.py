"""Many configs compiled, each beside its dense twin: the rows of a table."""

import dataclasses
import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import twin
from moe_jax.analysis.describe import byte_size
from moe_jax.aot.report import Facts, compile_step, duration

_UNKNOWN = "-"
_HEADER = (
    "config",
    "slice",
    "chips",
    "parameters",
    "bytes per chip",
    "fits",
    "collectives of a step",
    "estimated step time",
    "ratio to the dense twin",
    "compile seconds",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A config on a slice.

    Attributes:
      config: its file.
      overrides: of its fields.
      facts: of the config.
      twin: of the dense model with the same active FLOPs, on the same mesh.
    """

    config: str
    overrides: Mapping[str, Any]
    facts: Facts
    twin: Facts

    @property
    def ratio(self) -> float | None:
        """Estimated step time over the twin's; None if one is unknown."""
        own, other = self.facts.step_seconds, self.twin.step_seconds
        return own / other if own and other else None


def compile_rows(
    rows: Iterable[Mapping[str, Any]], say: Callable[[str], None] = lambda line: None
) -> Iterator[Row]:
    """Compiles rows as `configs.scaling` lists them; yields each when it is done.

    Args:
      rows: with `config`, `topology`, and maybe `num_slices` and `overrides`.
      say: is told what is compiled next.

    Raises:
      UserError: libtpu is missing, or a row cannot work.
    """
    for row in rows:
        overrides = dict(row.get("overrides", {}))
        config = load(row["config"], overrides)
        where = row["topology"], row.get("num_slices", 1)
        say(f"compiling {row['config']} for {where[0]}")
        facts = compile_step(config, *where)
        say(f"compiling the dense twin of {row['config']} for {where[0]}")
        dense = compile_step(twin.dense_twin(config, "active_flops"), *where)
        yield Row(row["config"], overrides, facts, dense)


def load(path: str, overrides: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of a file of this repository, with overrides."""
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    config = module.get_config()
    config.update_from_flattened_dict(overrides)
    return config


def to_markdown(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a Markdown table, one a row."""
    for cells in itertools.chain([_HEADER, ["---"] * len(_HEADER)], map(_cells, rows)):
        yield f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    facts, memory = row.facts, row.facts.memory
    settings = [f"{axis} {n}" for axis, n in facts.mesh.items() if n > 1]
    if "moe.dispatcher" in row.overrides:
        settings.insert(0, row.overrides["moe.dispatcher"])
    shown = f" ({', '.join(settings)})" if settings else ""
    slices = f"{facts.num_slices} x " if facts.num_slices > 1 else ""
    seconds = facts.step_seconds
    return [
        f"`{row.config}`{shown}",
        f"{slices}{facts.topology}",
        f"{facts.chips:,}",
        _short(facts.parameters),
        _UNKNOWN if memory.total is None else byte_size(memory.total),
        "yes" if memory.fits else "no",
        _collectives(facts),
        _UNKNOWN if seconds is None else duration(seconds),
        _UNKNOWN if row.ratio is None else f"{row.ratio:.2f}",
        f"{facts.compile_seconds:.0f}",
    ]


def _collectives(facts: Facts) -> str:
    times: Counter[str] = Counter()
    for one in facts.collectives:
        times[one.kind] += one.times
    if not times:
        return _UNKNOWN
    sent = byte_size(sum(one.bytes for one in facts.collectives))
    return ", ".join(f"{n:,} {kind}" for kind, n in times.items()) + f"; {sent} a chip"


def _short(number: float) -> str:
    """1234567 -> "1.23 M"."""
    for unit in ("", " K", " M", " B"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"
