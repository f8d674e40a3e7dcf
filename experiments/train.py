"""Trains a model: evaluates, checkpoints, and resumes what DIR already holds.

  python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Any field of the config can be changed on the command line:

  --config.moe.num_experts=16 --config.moe.router=gshard
  --config.data.source=text --config.data.path=my_book.txt

DIR gets config.json, environment.json, metrics.jsonl, summary.json, figures/,
TensorBoard events and checkpoints/. Ctrl-C or SIGTERM saves and ends; the same
command goes on where it ended.

On several machines, start it on each: with --distributed where a scheduler says who
they are (SLURM: srun; Cloud TPU, GKE, Open MPI), else with --coordinator,
--num_processes and --process_id. All of them see DIR, and a signal to any stops all.
"""

import re
from collections.abc import Sequence

from absl import flags

from experiments import command, launch
from moe_jax.allocator import keep_freed_memory
from moe_jax.errors import UserError

_CONFIG = command.define_config()
_WORKDIR = command.define_workdir("Folder of this run, local or gs://.")
_PROCESSES = launch.define_flags()
_PROFILE = flags.DEFINE_string(
    "profile",
    None,
    "A:B writes a trace of steps A to B into DIR/profile, for TensorBoard or xprof.",
)


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_config(_CONFIG)
    profile = _read_profile(_PROFILE.value)
    from moe_jax.training.loop import train

    keep_freed_memory()
    summary = train(config, _WORKDIR.value, profile)
    import jax

    loss = summary.get("loss/cross_entropy")
    if loss is not None and jax.process_index() == 0:
        bits = ""
        if "gzip_bits_per_byte" in summary:  # of text, all of which is predicted
            bits = (
                f", {summary['loss/bits_per_byte']:.3f} bits per byte "
                f"(gzip: {summary['gzip_bits_per_byte']:.3f})"
            )
        print(
            f"{summary['status']} at step {summary['step']}: held-out loss {loss:.4f} "
            f"nats per token{bits}; see {_WORKDIR.value}"
        )


def _read_profile(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile={text!r}: write A:B, such as 10:13, with A <= B")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    command.run(launch.one_of_many(main, _PROCESSES, trains=True))
