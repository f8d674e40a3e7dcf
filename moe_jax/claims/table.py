"""A table of a paper: its arms, its numbers and its claims, from a file.

`configs/ablations/PAPER/TABLE.py` is the table `PAPER.TABLE`. It defines

* `PAPER`: where the table stands, with the arXiv number;
* `PUBLISHED`: the paper's own table, {"columns": (...), "rows": ((...), ...)};
* `CLAIMS`: {name: fields of a `Claim`};

and, unless all its claims are exact ones,

* `BASELINE`: the arm whose seeds say how large the noise is;
* `get_base(scale)`: the config that the arms change;
* `get_arms(config, scale)`: {arm: {"group.field": value}}. A value "@ARM" of a
  field that takes a workdir (`init_from`, `distill.teacher`) is the run of that arm
  with the same seed. An arm with "evaluates": "ARM" trains nothing: it evaluates that
  arm's checkpoints with its other overrides;
* `TUNED`: True where each arm gets its best of three learning rates, chosen on seeds
  of their own, because the table compares quality;
* `SEEDS`: {scale: number of seeds}, where it differs from
  `configs.ablations.scales.SEEDS`;
* `SLICE`, `DEVICES`: the accelerators that the scale `paper` needs, by name and number.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import configs.ablations
from configs.ablations import scales
from moe_jax.claims.claim import SCALES, Claim, make_claim
from moe_jax.errors import UserError, check_choice
from moe_jax.sweeps.arms import resolve

# Fields of an arm that name another arm's run.
REFERENCES = ("init_from", "distill.teacher")
EVALUATES = "evaluates"


@dataclasses.dataclass(frozen=True)
class TableArm:
    """One row of a table.

    Attributes:
      name: of the arm.
      overrides: what differs from the base, references left out.
      config: the base with the overrides; references are empty.
      references: field -> arm whose run of the same seed it names.
      evaluates: the arm whose checkpoints this one evaluates; "" trains.
    """

    name: str
    overrides: Mapping[str, Any]
    config: ConfigDict
    references: Mapping[str, str]
    evaluates: str = ""

    @property
    def parents(self) -> tuple[str, ...]:
        """Arms whose runs come first."""
        own = (self.evaluates,) if self.evaluates else ()
        return (*own, *dict.fromkeys(self.references.values()))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper at one scale.

    Attributes:
      name: `paper.table`.
      title: first line of the file's docstring.
      paper: where it stands.
      scale: of `SCALES`.
      published: the paper's own table; {} if it has none.
      baseline: arm; "" where all claims are exact.
      arms: by name, parents before children.
      claims: by name.
      tuned: arms get their best of three learning rates.
      num_seeds: for each arm.
      slice, num_devices: accelerators that the scale `paper` needs.
    """

    name: str
    title: str
    paper: str
    scale: str
    published: Mapping[str, Any]
    baseline: str
    arms: Mapping[str, TableArm]
    claims: Mapping[str, Claim]
    tuned: bool
    num_seeds: int
    slice: str
    num_devices: int

    def needed_arms(self) -> tuple[str, ...]:
        """Arms that a claim or the noise needs at this scale, parents first."""
        tested = [c for c in self.claims.values() if self.scale in c.settings]
        needed = {arm for claim in tested for arm in claim.arms}
        return self.with_parents(needed | {self.baseline}) if needed else ()

    def with_parents(self, names: Collection[str]) -> tuple[str, ...]:
        """Some arms, and all that they come from, parents first."""
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            found.add(name)
            left += self.arms[name].parents
        return tuple(name for name in self.arms if name in found)


def table_names() -> tuple[str, ...]:
    """All tables that there are."""
    root = configs.ablations
    names = [
        module.name.removeprefix(f"{root.__name__}.")
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        if not module.ispkg
    ]
    return tuple(sorted(name for name in names if "." in name))


def load_table(name: str, scale: str) -> Table:
    """Reads a table's file.

    Raises:
      UserError: there is no such table or scale, or the file contradicts itself.
    """
    check_choice("table", name, table_names())
    check_choice("--scale", scale, SCALES)
    module = importlib.import_module(f"configs.ablations.{name}")
    arms = _arms(name, module, scale)
    baseline = getattr(module, "BASELINE", "")
    if arms and baseline not in arms:
        raise UserError(
            f"table {name}: BASELINE={baseline!r} is no arm; there is {', '.join(arms)}"
        )
    seeds = {**scales.SEEDS, **getattr(module, "SEEDS", {})}
    return Table(
        name=name,
        title=(module.__doc__ or name).strip().splitlines()[0].rstrip("."),
        paper=module.PAPER,
        scale=scale,
        published=getattr(module, "PUBLISHED", {}),
        baseline=baseline,
        arms=arms,
        claims={
            claim: make_claim(claim, fields, arms)
            for claim, fields in module.CLAIMS.items()
        },
        tuned=getattr(module, "TUNED", False),
        num_seeds=seeds[scale],
        slice=getattr(module, "SLICE", ""),
        num_devices=getattr(module, "DEVICES", 0),
    )


def _arms(name: str, module: ModuleType, scale: str) -> dict[str, TableArm]:
    if not hasattr(module, "get_arms"):
        return {}
    base = module.get_base(scale)
    arms = {}
    for arm, changes in module.get_arms(base, scale).items():
        overrides = {k: v for k, v in changes.items() if k != EVALUATES}
        references = {
            field: value[1:]
            for field, value in overrides.items()
            if field in REFERENCES and value.startswith("@")
        }
        overrides = {k: v for k, v in overrides.items() if k not in references}
        made = TableArm(
            name=arm,
            overrides=overrides,
            config=resolve(base, overrides, arm),
            references=references,
            evaluates=changes.get(EVALUATES, ""),
        )
        for parent in made.parents:
            if parent not in arms:
                raise UserError(
                    f"table {name}: arm {arm!r} needs {parent!r}, which must stand "
                    "before it"
                )
        arms[arm] = made
    return arms
