"""Runs of one config on meshes of virtual CPU devices, in a process of their own.

`python -m tests.parallel.meshes FILE` reads cases from JSON and prints what each
gave. The number of devices is fixed when jax starts, so that tests
of meshes cannot share the process of the others.
"""

import json
import os
import subprocess
import sys
from typing import Any

DEVICES = 8
FIRST_MOMENTS = (".mu", ".ema")  # what AdamW and Adafactor call it

# 16 groups of 8 tokens: every mesh has whole groups on every device.
BASE = {
    "model.num_layers": 2,
    "model.d_model": 16,
    "model.d_ff": 32,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "moe.num_experts": 8,
    "moe.d_ff": 16,
    "moe.router": "gshard",
    "moe.num_selected_experts": 2,
    "moe.group_size": 8,
    "moe.min_capacity": 1,
    "moe.train_capacity_factor": 1.0,
    "moe.jitter": 0.1,
    "loss.router_z": 0.01,
    "optimizer.warmup_steps": 1,
    "optimizer.adamw.b1": 0.0,  # the first moment is the last gradient
    "data.sequence_length": 16,
    "train.batch_size": 8,
    "train.eval_batch_size": 8,
}


def run(cases: list[dict[str, Any]], tmp_path: Any, what: str = "results") -> list[Any]:
    """What a function says of each case, in a process with `DEVICES` devices.

    Args:
      cases: `mesh` (devices along each axis) and `changes` (fields of the config);
        for `results` also `steps`, for `collectives` maybe `forward` (evaluation) and
        `topology` (a TPU slice that is not there, by the TPU compiler).
      tmp_path: for the file that carries them over.
      what: `results` or `collectives`.
    """
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"what": what, "cases": cases}))
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.meshes", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def build(case: dict[str, Any]):
    """The experiment of a case, on as many devices as its mesh has."""
    import math

    import jax

    from configs import base
    from moe_jax.training.checks import check_config
    from moe_jax.training.experiment import build_experiment

    config = base.get_config()
    config.update_from_flattened_dict({**BASE, **case["changes"]})
    sizes = dict(zip(("data", "expert", "model"), case["mesh"], strict=True))
    config.mesh.update(sizes)
    check_config(config)
    if "topology" in case:
        from moe_jax.aot.environment import use_libtpu_as_compiler
        from moe_jax.aot.topology import open_topology

        use_libtpu_as_compiler()
        config.moe.grouped_matmul = "ragged_dot"
        return build_experiment(config, 61, open_topology(case["topology"]).devices)
    return build_experiment(config, 61, jax.devices()[: math.prod(case["mesh"])])


def batch_of(config, seed: int = 0):
    """Rows of random tokens, some of them with padding behind."""
    from moe_jax.models import stack_configs

    batch = {}
    for name, own in stack_configs(config).items():
        prefix = "encoder_" if name == "encoder" else ""
        side = _side(own.train.batch_size, own.data.sequence_length, seed)
        batch |= {f"{prefix}{key}": value for key, value in side.items()}
    return {
        k: v for k, v in batch.items() if not k.endswith(("r_targets", "r_weights"))
    }


def _side(rows: int, length: int, seed: int):
    import numpy as np

    rng = np.random.default_rng(seed)
    shape = (rows, length)
    tokens = rng.integers(1, 60, shape).astype(np.int32)
    segments = np.ones(shape, np.int32)
    segments[::3, length * 11 // 16 :] = 0
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "segment_ids": segments,
        "positions": np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1)),
        "weights": (segments > 0).astype(np.float32),
    }


def results(case: dict[str, Any]) -> dict[str, Any]:
    """Metrics of some steps, and the last gradients.

    Of Adafactor, which divides a gradient before it is averaged, the moving average.
    """
    import jax
    import numpy as np

    parts = build(case)
    state, step = parts.init(), parts.train_step()
    compiled = step.lower(parts.abstract, parts.abstract_batch()).compile()
    out: dict[str, Any] = {"metrics": []}
    for i in range(case["steps"]):
        batch = batch_of(parts.config, i)
        state, metrics = compiled(state, parts.put_train(batch))
        out["metrics"].append(
            {k: np.asarray(v, np.float64).tolist() for k, v in metrics.items()}
        )
    leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    out["gradients"] = {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float64).ravel().tolist()
        for path, leaf in leaves
        if any(moment in jax.tree_util.keystr(path) for moment in FIRST_MOMENTS)
    }
    return out


def collectives(case: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """What the compiled step of a case communicates.

    Returns:
      For each collective its kind, the mesh axes that it spans (such as
      `data+expert`), how often a step runs it, and the bytes of one device's array.
    """
    parts = build(case)
    if case.get("forward"):
        step = parts.eval_step().lower(parts.abstract.variables, parts.abstract_batch())
    else:
        step = parts.train_step().lower(parts.abstract, parts.abstract_batch())
    return read_collectives(step.compile().as_text(), parts.mesh)


def read_collectives(text: str, mesh: Any) -> list[tuple[str, str, int, int]]:
    """The same of an optimized program."""
    from moe_jax.aot import hlo
    from moe_jax.aot.collectives import find_collectives, spanned_axes

    module = hlo.parse(text)
    found = find_collectives(module, hlo.execution(module))
    axes, sizes = tuple(mesh.shape), tuple(mesh.shape.values())
    return [
        (c.kind, "+".join(spanned_axes(c.groups, axes, sizes)), c.times, c.payload)
        for c in found
    ]


if __name__ == "__main__":
    with open(sys.argv[1]) as cases_file:
        asked = json.load(cases_file)
    function = {"results": results, "collectives": collectives}[asked["what"]]
    print(json.dumps([function(one) for one in asked["cases"]]))
