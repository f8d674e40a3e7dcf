"""A sweep on a SLURM cluster: one array job, one task per run."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from moe_jax.errors import UserError
from moe_jax.sweeps.executor import LOG, TRAIN, command_line, write_config
from moe_jax.sweeps.runs import Run

# Asked for before the time limit, so that a run still writes its checkpoint.
_SECONDS_TO_SAVE = 120


def array_script(
    runs: Sequence[Run],
    root: str,
    *,
    name: str,
    options: str = "",
    max_parallel: int = 0,
    train_command: Sequence[str] = TRAIN,
) -> str:
    """Returns the text of an sbatch array script that trains `runs`.

    Each task goes on where its run stopped, so that a requeued task loses
    nothing.

    Args:
      runs: one task each, numbered from 0.
      root: the sweep's workdir, on a file system that the nodes see.
      name: of the job.
      options: more sbatch options, as on its command line.
      max_parallel: tasks at a time; 0: as many as the cluster gives.
      train_command: what is given `--config=FILE --workdir=DIR`.
    """
    limit = f"%{max_parallel}" if max_parallel else ""
    directives = [
        f"--job-name={name}",
        f"--array=0-{len(runs) - 1}{limit}",
        f"--output={Path(root, 'slurm', '%A_%a.txt')}",
        "--open-mode=append",
        f"--signal=B:TERM@{_SECONDS_TO_SAVE}",
        *_split_options(options),
    ]
    lines = ["#!/bin/bash", *(f"#SBATCH {directive}" for directive in directives)]
    # Relative paths, and `-m`, mean what they meant where the sweep was started.
    lines += ["", f"cd {shlex.quote(os.getcwd())} || exit 1"]
    lines += ['case "$SLURM_ARRAY_TASK_ID" in']
    for index, run in enumerate(runs):
        command = shlex.join(command_line(run, root, train_command))
        log = shlex.quote(str(run.workdir / LOG))
        lines += [
            f"  {index})  # {run.name}",
            f"    mkdir -p {shlex.quote(str(run.workdir))}",
            f"    exec {command} >> {log} 2>&1",
            "    ;;",
        ]
    return "\n".join([*lines, "esac", ""])


def submit(script: str, runs: Sequence[Run], root: str, name: str) -> str:
    """Writes the script and the runs' configs, submits, and returns the job's id.

    Raises:
      UserError: `sbatch` is missing or refuses, the workdir is no path of a file
        system, or the sweep's last job is still in the queue.
    """
    if "://" in root:
        raise UserError(
            f"--launcher=slurm needs a --workdir on a shared file system, not {root}"
        )
    if shutil.which("sbatch") is None:
        raise UserError(
            "--launcher=slurm needs sbatch, which is not on PATH; run on a login node "
            "of the cluster, or leave out --launcher"
        )
    folder = Path(root) / "slurm"
    job_file = folder / f"{name}.job"
    _refuse_second_job(job_file)
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        write_config(run, root)
    path = folder / f"{name}.sbatch"
    path.write_text(script)
    result = subprocess.run(
        ["sbatch", "--parsable", str(path)], capture_output=True, text=True
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        raise UserError(f"sbatch refused {path}: {reason}")
    job = result.stdout.strip().split(";")[0]
    job_file.write_text(job)
    return job


def _refuse_second_job(job_file: Path) -> None:
    """Two jobs of one sweep would train the same runs in the same folders."""
    if not job_file.exists() or shutil.which("squeue") is None:
        return
    job = job_file.read_text()
    queue = subprocess.run(
        ["squeue", "--noheader", f"--jobs={job}"], capture_output=True, text=True
    )
    if queue.returncode == 0 and queue.stdout.strip():
        raise UserError(
            f"job {job} of this sweep is still in the queue; wait for it, or cancel it "
            f"with `scancel {job}`, then give the same command again"
        )


def _split_options(options: str) -> list[str]:
    """`--a=1 -p gpu` -> ["--a=1", "-p gpu"]: one directive per option."""
    directives: list[str] = []
    for word in shlex.split(options):
        name, equals, value = word.partition("=")
        quoted = f"{name}={shlex.quote(value)}" if equals else shlex.quote(word)
        if word.startswith("-") or not directives:
            directives.append(quoted)
        else:
            directives[-1] += f" {quoted}"
    wrong = [directive for directive in directives if not directive.startswith("-")]
    if wrong:
        raise UserError(f"--sbatch_options: {wrong[0]!r} is no option; it needs a dash")
    return directives
