"""The array script, run by a stand-in for sbatch that executes its tasks."""

import os
import re

import pytest

from moe_jax.errors import UserError
from moe_jax.sweeps import slurm

# Runs every task of the array, as the cluster would, and answers with its id.
SBATCH = """#!/bin/bash
for last; do :; done
range=$(grep -oP '(?<=--array=)\\d+-\\d+' "$last")
for i in $(seq "${range%-*}" "${range#*-}"); do
  SLURM_ARRAY_TASK_ID=$i bash "$last" || exit 1
done
echo "4711;cluster"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def install(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    install("sbatch", SBATCH)
    return install


def script(bench, runs, **more):
    return slurm.array_script(
        runs, str(bench.root), name="s", train_command=bench.train_command, **more
    )


def test_the_array_trains_every_run(bench, cluster):
    runs = bench.plan(num_seeds=2, a=16, b=17)
    job = slurm.submit(script(bench, runs), runs, str(bench.root), "s")
    assert job == "4711"
    assert [run.status() for run in runs] == ["finished"] * 4
    assert all((run.workdir / "log.txt").exists() for run in runs)


def test_directives_carry_the_array_and_the_users_options(bench):
    runs = bench.plan(num_seeds=3, a=16)
    options = "--partition=gpu -t 4:00:00 --comment='two words'"
    text = script(bench, runs, options=options, max_parallel=2)
    directives = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert "--array=0-2%2" in directives
    assert directives[-3:] == ["--partition=gpu", "-t 4:00:00", "--comment='two words'"]
    assert "%2" not in script(bench, runs)


def test_the_script_writes_nothing(bench):
    script(bench, bench.plan(a=16))
    assert not bench.root.exists()


def test_a_job_still_in_the_queue_is_not_submitted_twice(bench, cluster):
    runs = bench.plan(a=16)
    slurm.submit(script(bench, runs), runs, str(bench.root), "s")
    cluster("squeue", "#!/bin/bash\necho 4711 gpu RUNNING\n")
    with pytest.raises(UserError, match="job 4711 of this sweep is still in the queue"):
        slurm.submit(script(bench, runs), runs, str(bench.root), "s")
    cluster("squeue", "#!/bin/bash\nexit 0\n")
    assert slurm.submit(script(bench, runs), runs, str(bench.root), "s") == "4711"


def test_a_refusal_is_said_in_one_line(bench, cluster):
    cluster("sbatch", "#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n")
    runs = bench.plan(a=16)
    with pytest.raises(UserError, match=r"sbatch refused .*: invalid partition"):
        slurm.submit(script(bench, runs), runs, str(bench.root), "s")


def test_a_machine_without_slurm_is_told_so(bench, monkeypatch):
    monkeypatch.setenv("PATH", "")
    runs = bench.plan(a=16)
    with pytest.raises(UserError, match="needs sbatch"):
        slurm.submit(script(bench, runs), runs, str(bench.root), "s")
    assert not bench.root.exists()


def test_a_bucket_and_a_stray_word_are_refused(bench):
    with pytest.raises(UserError, match="shared file system"):
        slurm.submit("", [], "gs://bucket/sweep", "s")
    with pytest.raises(UserError, match="'gpu' is no option"):
        script(bench, bench.plan(a=16), options="gpu")
