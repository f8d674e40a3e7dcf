"""Compiles the train step for TPU slices that are not there, by the real compiler.

  python -m experiments.compile --config=configs/base.py --topology=v5e:4x4
  python -m experiments.compile --config=configs/base.py --topology=v5e:4x4 \\
      --num_slices=2 --config.mesh.expert=4 --json
  python -m experiments.compile --suite=scaling

Says whether the step fits the chips' memory, which collectives it runs over which
axes of the mesh, and estimates its time. Works from shapes alone, on any x86 Linux
machine with libtpu (pip install -e '.[tpu]'); it takes no memory for parameters, and
no TPU, not even an attached one. The estimated time is not calibrated against any
measurement: compare it with other estimates for the same chip only.

A topology is a generation (v4, v5e, v5p, v6e, tpu7x) and the shape of a slice in
chips. With --num_slices, the data axis crosses slices; expert and model stay within.
--suite=scaling compiles the rows of configs/scaling.py, each beside its dense twin of
equal active FLOPs, and prints a Markdown table.
"""

import dataclasses
import json
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from configs import scaling
from experiments import command
from moe_jax.console import make_console
from moe_jax.errors import UserError

_CONFIG = command.define_config()
_TOPOLOGY = flags.DEFINE_string("topology", "", "TPU slice, such as v5e:4x4.")
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "How many of such slices.")
_SUITE = flags.DEFINE_enum("suite", None, ["scaling"], "Compile a list of configs.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: Sequence[str]) -> None:
    del argv
    import jax

    from moe_jax.aot.environment import use_libtpu_as_compiler

    use_libtpu_as_compiler()
    # A step read back from a cache would have no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    if _SUITE.value:
        _compile_suite()
    else:
        _compile_one()


def _compile_one() -> None:
    from moe_jax.aot import report
    from moe_jax.aot.estimate import CAVEAT

    config = command.read_config(_CONFIG)
    if not _TOPOLOGY.value:
        raise UserError("--topology=NAME is missing, such as v5e:4x4")
    progress = Console(stderr=True).status(f"compiling for {_TOPOLOGY.value}")
    with progress:
        facts = report.compile_step(config, _TOPOLOGY.value, _NUM_SLICES.value)
    if _JSON.value:
        print(json.dumps(dataclasses.asdict(facts), indent=1))
        return
    console = make_console()
    console.print(report.to_table(facts))
    if facts.memory.fits:
        console.print(f"The time is {CAVEAT}.")
    else:
        console.print(f"The step does not fit. {facts.memory.refusal}")


def _compile_suite() -> None:
    if _CONFIG.value is not None or _TOPOLOGY.value:
        raise UserError(
            f"--suite={_SUITE.value} has its own configs and slices "
            "(configs/scaling.py): leave --config and --topology out"
        )
    from moe_jax.aot import suite
    from moe_jax.aot.estimate import CAVEAT

    rows = suite.compile_rows(scaling.ROWS, Console(stderr=True).print)
    if _JSON.value:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    for line in suite.to_markdown(rows):
        print(line, flush=True)  # a row may take minutes
    print(f"\nStep times are {CAVEAT}.")


if __name__ == "__main__":
    command.run(main)
