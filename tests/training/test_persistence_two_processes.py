"""Several processes of one run agree on what is saved, restored and refused."""

import socket
import subprocess
import sys

import pytest

_PROCESS = """
import sys
import jax, numpy as np
index, address, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, index)
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from configs import base
from moe_jax.errors import UserError
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.workdir import open_workdir

def refused(call, *args):
    try:
        call(*args)
    except UserError:
        return True

assert open_workdir(base.get_config(), folder + "/run", "f", {}) is False
assert open_workdir(base.get_config(), folder + "/run", "f", {}) is True
other = base.get_config()
other.seed = 4
assert refused(open_workdir, other, folder + "/run", "f", {})

mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("data"))
whole = np.arange(64.0, dtype=np.float32).reshape(8, 8)
like = {"x": jax.ShapeDtypeStruct((8, 8), np.float32, sharding=sharding)}

def state(step):
    piece = lambda index: whole[index] + step
    return {"x": jax.make_array_from_callback((8, 8), sharding, piece)}

def restored(checkpoints, step):
    found, extra = checkpoints.restore_latest(like)
    for shard in found["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index] + step)
    return extra == {"position": step}

with Checkpoints(folder + "/c", keep_last=2, keep_best=1) as checkpoints:
    assert checkpoints.restore_latest(like) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"position": step}, 1.0 / step)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    assert restored(checkpoints, 3)
    if index == 0:
        file = epath.Path(folder) / "c/3/state/manifest.ocdbt"
        file.write_bytes(file.read_bytes()[:-1])
    assert restored(checkpoints, 2)
    checkpoints.save(3, state(3), {"position": 3})
    assert restored(checkpoints, 3)
    assert refused(checkpoints.restore_latest, {"y": like["x"]})
print("both agree")
"""


@pytest.mark.slow
def test_two_processes_agree_on_workdir_and_checkpoints(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(index), address, tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert "both agree" in output, errors
    finally:
        for process in processes:
            process.kill()
