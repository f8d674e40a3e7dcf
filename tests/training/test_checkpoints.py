"""What is restored is what was saved, to the bit, or it is not restored."""

import dataclasses
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.errors import UserError
from moe_jax.training import manifest as manifests
from moe_jax.training.checkpoints import (
    Checkpoints,
    kept,
    load_matching,
    load_variables,
)

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "int8", "bool")


class Moments(NamedTuple):
    """Stands in for an optax state."""

    mu: Any
    nu: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    """Stands in for the train state."""

    params: Any
    opt_state: Any
    step: Any


def make_state(step: int) -> State:
    params = {
        "embed": {"embedding": jnp.full((4, 3), step, jnp.bfloat16)},
        "blocks": {"layer_0": {"kernel": jnp.arange(6.0).reshape(2, 3) + step}},
    }
    moments = Moments(mu=params, nu=jax.tree.map(lambda x: x * 2, params))
    return State(params, (moments, ()), jnp.int32(step))


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def assert_same_bits(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def files_of(path: epath.Path) -> list[epath.Path]:
    return [epath.Path(top) / name for top, _, names in path.walk() for name in names]


def flip_bit(file: epath.Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.fixture
def two_saved(tmp_path):
    with Checkpoints(tmp_path / "c", keep_last=5, keep_best=0) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), {"position": step})
        checkpoints.wait()
        yield checkpoints, epath.Path(tmp_path / "c")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(DTYPES),
            st.lists(st.integers(0, 4), max_size=3),
            st.integers(0, 2**32 - 1),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_roundtrip_gives_the_same_bits_for_any_dtype_and_shape(leaves):
    tree: dict[str, Any] = {"one": jnp.zeros(())}
    for i, (dtype, shape, seed) in enumerate(leaves):
        itemsize = jnp.dtype(dtype).itemsize
        size = int(np.prod(shape)) * itemsize
        raw = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
        raw = raw % 2 if dtype == "bool" else raw
        array = np.frombuffer(raw.tobytes(), jnp.dtype(dtype)).reshape(shape)
        tree[str(i)] = [jnp.asarray(array)]
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, 1, 0) as saved:
        saved.save(0, tree, {})
        restored, _ = saved.restore_latest(abstract(tree))
    assert_same_bits(restored, tree)


def test_restores_the_newest_with_its_extra(two_saved):
    checkpoints, _ = two_saved
    state, extra = checkpoints.restore_latest(abstract(make_state(0)))
    assert_same_bits(state, make_state(2))
    assert extra == {"position": 2}
    state, extra = checkpoints.restore_step(1, abstract(make_state(0)))
    assert_same_bits(state, make_state(1))
    assert extra == {"position": 1}


def test_relative_folder_saves_and_loads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints("runs/a", keep_last=1, keep_best=0) as checkpoints:
        checkpoints.save(1, make_state(1), {})
    state = make_state(1)
    restored = Checkpoints("runs/a", 1, 0).restore_latest(abstract(state))
    assert_same_bits(restored[0], state)
    loaded, _ = load_variables("runs/a", {"params": abstract(state.params)})
    assert_same_bits(loaded, {"params": state.params})
    assert load_matching("runs/a", {"params": abstract(state.params)})


def test_nothing_saved_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "none", keep_last=1, keep_best=0) as checkpoints:
        assert checkpoints.restore_latest(abstract(make_state(0))) is None
        assert checkpoints.steps() == []
        assert checkpoints.best_step() is None
    assert not (tmp_path / "none").exists()


def test_save_without_manifest_does_not_exist_and_is_replaced(two_saved):
    checkpoints, directory = two_saved
    (directory / "2" / manifests.NAME).unlink()
    (directory / "3.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.steps() == [1]
    state, _ = checkpoints.restore_latest(abstract(make_state(0)))
    assert_same_bits(state, make_state(1))
    checkpoints.save(2, make_state(20), {})
    state, _ = checkpoints.restore_latest(abstract(make_state(0)))
    assert_same_bits(state, make_state(20))
    assert not (directory / "3.orbax-checkpoint-tmp").exists()


def test_kill_before_the_manifest_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep_last=1, keep_best=0) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(manifests, "write_manifest", _raise_killed)
            checkpoints.save(2, make_state(2), {})
            with pytest.raises(KeyboardInterrupt, match="killed"):
                checkpoints.wait()
        assert (tmp_path / "2").exists()
        state, _ = checkpoints.restore_latest(abstract(make_state(0)))
        assert_same_bits(state, make_state(1))


def _raise_killed(*_):
    raise KeyboardInterrupt("killed")


def test_one_flipped_bit_in_any_file_falls_back_with_a_warning(two_saved, caplog):
    checkpoints, directory = two_saved
    tried = []
    for file in files_of(directory / "2"):
        original = file.read_bytes()
        if not original:
            continue
        flip_bit(file)
        caplog.clear()
        state, _ = checkpoints.restore_latest(abstract(make_state(0)))
        file.write_bytes(original)
        assert_same_bits(state, make_state(1))
        (warning,) = [
            r.getMessage() for r in caplog.records if r.levelname == "WARNING"
        ]
        assert str(file) in warning
        assert "checkpoint 1" in warning
        tried.append(file.name)
    assert {manifests.NAME, "manifest.ocdbt", "_METADATA", "_sharding"} <= set(tried)


def test_truncated_or_missing_files_fall_back(two_saved):
    checkpoints, directory = two_saved
    for file in files_of(directory / "2"):
        if file.name == manifests.NAME:
            continue
        original = file.read_bytes()
        file.unlink()
        state, _ = checkpoints.restore_latest(abstract(make_state(0)))
        assert_same_bits(state, make_state(1))
        if original:
            file.write_bytes(original[:-1])
            state, _ = checkpoints.restore_latest(abstract(make_state(0)))
            assert_same_bits(state, make_state(1))
        file.write_bytes(original)
    state, _ = checkpoints.restore_latest(abstract(make_state(0)))
    assert_same_bits(state, make_state(2))


def test_all_damaged_is_an_error_and_not_a_new_start(two_saved):
    checkpoints, directory = two_saved
    for step in ("1", "2"):
        flip_bit(directory / step / "state" / "manifest.ocdbt")
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoints.restore_latest(abstract(make_state(0)))
    with pytest.raises(UserError, match="damaged"):
        checkpoints.restore_step(1, abstract(make_state(0)))
    assert checkpoints.steps() == [1, 2]


def test_damaged_checkpoint_does_not_count_as_the_last(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
    for step in (1, 3):
        checkpoints.save(step, make_state(step), {}, metric=float(10 - step))
    checkpoints.wait()
    flip_bit(epath.Path(tmp_path / "3" / "state" / "manifest.ocdbt"))
    _, extra = checkpoints.restore_latest(abstract(make_state(0)))
    checkpoints.save(2, make_state(2), extra)
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def _wrong_shape(state):
    state.params["embed"]["embedding"] = jnp.zeros((5, 3), jnp.bfloat16)


def _wrong_dtype(state):
    state.params["embed"]["embedding"] = jnp.zeros((4, 3), jnp.float32)


def _missing_leaf(state):
    del state.params["embed"]


def _added_leaf(state):
    state.params["extra"] = jnp.zeros((1,))


@pytest.mark.parametrize(
    "change", [_wrong_shape, _wrong_dtype, _missing_leaf, _added_leaf]
)
def test_other_tensors_are_refused_and_never_fall_back(two_saved, change):
    checkpoints, _ = two_saved
    wanted = make_state(0)
    change(wanted)
    checkpoints.save(3, wanted, {})
    with pytest.raises(UserError, match=r"params/e\w+") as error:
        checkpoints.restore_latest(abstract(make_state(0)))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"params/e\w+"):
        checkpoints.restore_step(1, abstract(wanted))
    assert checkpoints.steps() == [1, 2, 3]


def test_donated_and_overwritten_buffers_do_not_reach_the_checkpoint(tmp_path):
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: -x, tree), donate_argnums=0)
    expected = np.arange(1_000_000, dtype=np.float32)
    tree = {"device": jnp.asarray(expected), "host": expected.copy()}
    with Checkpoints(tmp_path, keep_last=1, keep_best=0) as checkpoints:
        checkpoints.save(1, tree, {})
        jax.block_until_ready(overwrite(tree["device"]))
        tree["host"][:] = -1.0
        restored, _ = checkpoints.restore_latest(abstract(tree))
    for name in tree:
        np.testing.assert_array_equal(restored[name], expected)


@given(
    st.dictionaries(
        st.integers(0, 99), st.none() | st.sampled_from([1.0, 2.0, 3.0]), min_size=1
    ),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_kept_are_the_last_and_the_best(metrics, keep_last, keep_best):
    keep = kept(metrics, keep_last, keep_best)
    assert max(metrics) in keep
    assert len(keep) <= keep_last + keep_best
    newest = sorted(metrics, reverse=True)[:keep_last]
    assert set(newest) <= keep
    known = {s: m for s, m in metrics.items() if m is not None}
    for step in keep - set(newest):
        better = [s for s, m in known.items() if (m, s) < (known[step], step)]
        assert len(better) < keep_best
    assert len(keep & known.keys()) >= min(keep_best, len(known))


def test_directory_holds_the_last_and_the_best(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: None, 4: float("nan"), 5: 2.0}
    with Checkpoints(tmp_path, keep_last=2, keep_best=1) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(step, make_state(step), {}, metric=loss)
        assert checkpoints.best_step() == 2
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 5]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4", "5"]


def test_saving_a_step_again_updates_its_metric_and_extra(two_saved):
    checkpoints, _ = two_saved
    checkpoints.save(2, make_state(2), {"position": 9}, metric=0.5)
    assert checkpoints.best_step() == 2
    state, extra = checkpoints.restore_latest(abstract(make_state(0)))
    assert_same_bits(state, make_state(2))
    assert extra == {"position": 9}


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="keep_last=0"):
        Checkpoints(tmp_path, keep_last=0, keep_best=3)


def test_load_variables_reads_only_the_parameters(two_saved):
    _, directory = two_saved
    wanted = {"params": abstract(make_state(0).params)}
    loaded, manifest = load_variables(directory, wanted)
    assert_same_bits(loaded, {"params": make_state(2).params})
    assert (manifest.step, manifest.extra) == (2, {"position": 2})
    loaded, manifest = load_variables(directory, wanted, step=1)
    assert_same_bits(loaded, {"params": make_state(1).params})


def test_load_variables_refuses_what_is_not_there(two_saved, tmp_path):
    _, directory = two_saved
    other = {"other": jax.ShapeDtypeStruct((1,), jnp.float32)}
    with pytest.raises(UserError, match="params/other"):
        load_variables(directory, {"params": other})
    with pytest.raises(UserError, match=r"no checkpoint of step 7.*\[1, 2\]"):
        load_variables(directory, {"params": abstract(make_state(0).params)}, step=7)
    with pytest.raises(UserError, match="no checkpoint in"):
        load_variables(tmp_path / "other", {"params": abstract(make_state(0).params)})


def test_load_matching_gives_what_both_have_and_nothing_else(two_saved):
    _, directory = two_saved
    wanted = abstract(make_state(0).params)
    wanted["embed"]["embedding"] = jax.ShapeDtypeStruct((9, 3), jnp.bfloat16)
    wanted["new"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    loaded = load_matching(directory, {"params": wanted})
    assert list(loaded) == ["params/blocks/layer_0/kernel"]
    kernel = make_state(2).params["blocks"]["layer_0"]["kernel"]
    assert_same_bits(loaded["params/blocks/layer_0/kernel"], kernel)
    assert load_matching(directory, {"params": {"new": wanted["new"]}}) == {}


_MESHES = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from moe_jax.training.checkpoints import Checkpoints
devices = np.array(jax.devices())
def sharding(*shape):
    mesh = jax.make_mesh(shape, ("data", "expert"), axis_types=(AxisType.Auto,) * 2)
    return NamedSharding(mesh, P("expert", "data"))
array = np.arange(64.0, dtype=np.float32).reshape(8, 8)
with Checkpoints(sys.argv[1], 1, 0) as checkpoints:
    checkpoints.save(1, {"x": jax.device_put(array, sharding(2, 2))}, {})
    for target in (sharding(1, 4), sharding(4, 1), None):
        like = {"x": jax.ShapeDtypeStruct((8, 8), array.dtype, sharding=target)}
        (restored, _) = checkpoints.restore_latest(like)
        np.testing.assert_array_equal(restored["x"], array)
        assert len(restored["x"].sharding.device_set) == (4 if target else 1)
        assert target is None or restored["x"].sharding == target
print("every mesh agrees")
"""


@pytest.mark.slow
def test_restores_onto_another_mesh(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _MESHES, tmp_path], capture_output=True, text=True
    )
    assert "every mesh agrees" in done.stdout, done.stderr


_SAVING = """
import sys
from tests.training.test_checkpoints import *
with Checkpoints(sys.argv[1], keep_last=2, keep_best=1) as checkpoints:
    found = checkpoints.restore_latest(abstract(make_state(0)))
    first = 1 if found is None else int(found[0].step) + 1
    print("started", flush=True)
    for step in range(first, 10**6):
        checkpoints.save(step, make_state(step), {"position": step}, 1.0 / step)
"""


@pytest.mark.slow
def test_killed_at_any_moment_leaves_an_undamaged_checkpoint(tmp_path, caplog):
    latest = 0
    for kill_after in (0.05, 0.11, 0.31, 0.52, 0.73):
        saving = subprocess.Popen(
            [sys.executable, "-c", _SAVING, tmp_path], stdout=subprocess.PIPE
        )
        assert saving.stdout.readline() == b"started\n"
        time.sleep(kill_after)
        saving.kill()
        saving.wait()
        checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
        found = checkpoints.restore_latest(abstract(make_state(0)))
        if found is not None:
            state, extra = found
            assert_same_bits(state, make_state(extra["position"]))
            assert extra["position"] >= latest
            latest = extra["position"]
        checkpoints.close()
    assert latest > 0
    assert not [r for r in caplog.records if "damaged" in r.getMessage()]
