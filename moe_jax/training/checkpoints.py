"""Checkpoints: saved behind the training's back, checked before they are used.

Orbax moves the bytes; this is the one file that knows it. What Orbax does not
do is added around it: it reads a flipped bit and casts a dtype without a word,
so that every file is compared with the manifest before it is read, and every
tensor's path, shape and dtype before it is asked for.

Layout: `directory/<step>/` with Orbax's files and `manifest.json`.
"""

import concurrent.futures
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from moe_jax.errors import UserError
from moe_jax.parallel import processes
from moe_jax.training import manifest as manifests

# A save that was cut short: Orbax's temporary folder, or a folder of ours that
# the manifest never reached. Nothing else in the directory is ever removed.
_CHECKPOINT_NAME = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")
_NONE, _ALL_DAMAGED = -1, -2


class Checkpoints:
    """The checkpoints of one run.

    In a run of several processes all of them make the same calls; process 0
    writes manifests, checks checksums, and removes.
    """

    def __init__(self, directory: epath.PathLike, keep_last: int, keep_best: int):
        """Opens a directory; it is made by the first save.

        Args:
          directory: local or `gs://`.
          keep_last: how many of the newest to keep, at least 1.
          keep_best: how many of those with the lowest metric to keep besides.
        """
        if keep_last < 1 or keep_best < 0:
            raise UserError(
                f"keep_last={keep_last}, keep_best={keep_best}: keep at least the "
                "last checkpoint (keep_last>=1, keep_best>=0)"
            )
        self._directory = _absolute(directory)
        self._keep_last, self._keep_best = keep_last, keep_best
        self._committer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: concurrent.futures.Future | None = None
        self._saved_step: int | None = None
        self._damaged: frozenset[int] = frozenset()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1:
            # A process that fails alone waits for no other.
            self._committer.shutdown(wait=False, cancel_futures=True)
            return
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        extra: Mapping[str, Any],
        metric: float | None = None,
    ) -> None:
        """Starts to save `state`; it may be donated or changed on return.

        Finishes an earlier save first. An unfinished or damaged checkpoint of the
        same step is replaced. A step that this object has just saved or restored
        is not written twice: its `extra` and `metric` are.

        Args:
          step: training steps behind `state`; the checkpoint's name.
          state: pytree of arrays.
          extra: JSON-able, finite; returned by `restore_latest`.
          metric: held-out loss, for `keep_best`; None or not finite: unknown.

        Raises:
          OSError or another error of the earlier save.
        """
        self._finish()
        known = metric is not None and math.isfinite(metric)
        manifest = manifests.Manifest(
            step=step,
            metric=float(metric) if known else None,
            extra=json.loads(json.dumps(dict(extra), allow_nan=False)),
            tree=manifests.describe_tree(state),
            files={},
        )
        finalize = None
        if step != self._saved_step:
            path = self._directory / str(step)
            if jax.process_index() == 0:
                (path / manifests.NAME).unlink(missing_ok=True)
                self._remove_unfinished()
                self._directory.mkdir(parents=True, exist_ok=True)
            nested = _nest(manifests.leaves_by_path(state))
            finalize = ocp.save_async(path, nested, overwrite=True).result
        self._saved_step = step
        self._pending = self._committer.submit(self._commit, finalize, manifest)

    def restore_latest(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest undamaged checkpoint as (state, extra); None: there is none.

        A damaged checkpoint is skipped with a warning that names the file and the
        checkpoint taken instead.

        Args:
          abstract_state: pytree of `jax.ShapeDtypeStruct`; arrays are laid out by
            its shardings, whatever they were when saved (none: one device).

        Raises:
          UserError: all checkpoints are damaged, or the newest undamaged one holds
            other tensors.
        """
        self.wait()
        self._saved_step = None  # it may be found damaged: let it be saved again
        step, self._damaged = _newest_intact(self._directory)
        if step is None:
            return None
        restored = _restore(self._directory, step, abstract_state)
        self._saved_step = step
        return restored

    def restore_step(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """The checkpoint of `step` as (state, extra).

        Raises:
          UserError: it does not exist, is damaged or holds other tensors.
        """
        self.wait()
        _check_intact(self._directory, step)
        return _restore(self._directory, step, abstract_state)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return manifests.committed_steps(self._directory)

    def best_step(self) -> int | None:
        """Step with the lowest metric, the earliest of equals; None: none known."""
        self.wait()
        known = {s: m for s, m in self._metrics().items() if m is not None}
        return min(sorted(known), key=known.__getitem__, default=None)

    def wait(self) -> None:
        """Returns when what was saved last is on the disk, on every process.

        Raises: what went wrong while saving it.
        """
        self._finish()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("moe_jax checkpoint")

    def close(self) -> None:
        """Finishes the save under way and ends the background thread."""
        try:
            self.wait()
        finally:
            self._committer.shutdown()

    def _finish(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except BaseException:
            self._saved_step = None
            raise

    def _commit(
        self, finalize: Callable[[], None] | None, manifest: manifests.Manifest
    ) -> None:
        """Runs in the background, without collectives.

        Orbax renames its folder on process 0, after all processes have written:
        what process 0 sees there is complete.
        """
        if finalize is not None:
            finalize()
        if jax.process_index() != 0:
            return
        path = self._directory / str(manifest.step)
        if finalize is not None:
            files = manifests.checksums(path)
        else:  # hashing them again would bless what was damaged since
            files = manifests.read_manifest(self._directory, manifest.step).files
        manifests.write_manifest(path, dataclasses.replace(manifest, files=files))
        self._damaged -= {manifest.step}
        self._remove_superfluous()

    def _remove_superfluous(self) -> None:
        """Runs when a checkpoint was committed, so that one is always left.

        Damaged ones go too: they would count as the last.
        """
        metrics = self._metrics()
        keep = kept(metrics, self._keep_last, self._keep_best)
        for step in sorted((metrics.keys() | self._damaged) - keep):
            path = self._directory / str(step)
            # Without its manifest a half-removed checkpoint does not count.
            (path / manifests.NAME).unlink(missing_ok=True)
            path.rmtree(missing_ok=True)

    def _remove_unfinished(self) -> None:
        if not self._directory.exists():
            return
        for path in self._directory.iterdir():
            unfinished = not (path / manifests.NAME).exists()
            if _CHECKPOINT_NAME.fullmatch(path.name) and unfinished:
                logging.info("removing %s: its save was cut short", path)
                path.rmtree()

    def _metrics(self) -> dict[int, float | None]:
        """Metric of each finished checkpoint that is not known to be damaged."""
        metrics = {}
        for step in self.steps():
            if step in self._damaged:
                continue
            try:
                metrics[step] = manifests.read_manifest(self._directory, step).metric
            except manifests.DamagedError:
                metrics[step] = None
        return metrics


def kept(
    metrics: Mapping[int, float | None], keep_last: int, keep_best: int
) -> set[int]:
    """Steps to keep: the newest, and those of lowest metric, the earlier first."""
    last = sorted(metrics)[-keep_last:]
    known = [step for step in sorted(metrics) if metrics[step] is not None]
    best = sorted(known, key=metrics.__getitem__)[:keep_best]
    return {*last, *best}


def load_variables(
    directory: epath.PathLike, abstract: Mapping[str, Any], step: int | None = None
) -> tuple[dict[str, Any], manifests.Manifest]:
    """Only what the model is applied to: the optimizer's state stays unread.

    Args:
      directory: the folder that holds the checkpoints, never written to.
      abstract: `variables` of the saved state as `jax.ShapeDtypeStruct`, such as
        `{"params": ...}`; shardings as in `Checkpoints.restore_latest`.
      step: which checkpoint; None: the newest undamaged one.

    Returns:
      The same tree of arrays, and the checkpoint's manifest.

    Raises:
      UserError: no such checkpoint, damaged, or other tensors in it.
    """
    directory = _absolute(directory)
    if step is None:
        step = _some_intact(directory)
    else:
        _check_intact(directory, step)
    prefixes = tuple(f"{name}/" for name in abstract)
    restored, _ = _restore(directory, step, dict(abstract), prefixes)
    return restored, manifests.read_manifest(directory, step)


def load_matching(directory: epath.PathLike, abstract: Any) -> dict[str, jax.Array]:
    """The tensors that the newest undamaged checkpoint and `abstract` share.

    Args:
      directory: the folder that holds the checkpoints, never written to.
      abstract: pytree of `jax.ShapeDtypeStruct` with paths like the saved
        state's, such as `{"params": ...}`.

    Returns:
      {path: tensor} of those with the same path, shape and dtype.

    Raises:
      UserError: no checkpoint there.
    """
    directory = _absolute(directory)
    step = _some_intact(directory)
    saved = manifests.read_manifest(directory, step).tree
    wanted = manifests.describe_tree(abstract)
    shared = _nest(
        (path, _placed(leaf))
        for path, leaf in manifests.leaves_by_path(abstract)
        if saved.get("/".join(path)) == wanted["/".join(path)]
    )
    loaded = _load(directory / str(step), shared, partial=True) if shared else {}
    return {"/".join(path): leaf for path, leaf in manifests.leaves_by_path(loaded)}


def _restore(
    directory: epath.Path, step: int, abstract: Any, prefixes: tuple[str, ...] = ("",)
) -> tuple[Any, dict[str, Any]]:
    """Reads the leaves whose paths begin with a prefix, checksums seen to."""
    path = directory / str(step)
    manifest = manifests.read_manifest(directory, step)
    saved = {k: v for k, v in manifest.tree.items() if k.startswith(prefixes)}
    manifests.check_same(path, saved, manifests.describe_tree(abstract))
    abstract = jax.tree.map(_placed, abstract)
    wanted = _nest(manifests.leaves_by_path(abstract))
    nested = _load(path, wanted, partial=prefixes != ("",))
    return _unnest(nested, abstract), manifest.extra


def _load(path: epath.Path, nested: dict[str, Any], partial: bool) -> dict[str, Any]:
    """Orbax's load; partial: the checkpoint may hold more than `nested` names."""
    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    with context:
        return ocp.load(path, nested)


def _newest_intact(directory: epath.Path) -> tuple[int | None, frozenset[int]]:
    """Step of the newest undamaged checkpoint, and the damaged ones passed over.

    Process 0 looks, the others are told.
    """
    found, damage = _NONE, {}
    if jax.process_index() == 0:
        for step in reversed(manifests.committed_steps(directory)):
            try:
                manifests.check_files(directory, step)
            except manifests.DamagedError as error:
                damage[step] = str(error)
                continue
            found = step
            break
        if damage and found == _NONE:
            found = _ALL_DAMAGED
    found = processes.agreed(found)
    if found == _ALL_DAMAGED:
        reasons = "; ".join(damage.values()) or "see what process 0 says"
        raise UserError(
            f"every checkpoint in {directory} is damaged ({reasons}); restore the "
            "files from a copy, or train anew in another workdir"
        )
    if damage:
        reasons = "; ".join(damage.values())
        logging.warning(
            "damaged checkpoint: %s. Falling back to checkpoint %d", reasons, found
        )
    return (None if found == _NONE else found), frozenset(damage)


def _some_intact(directory: epath.Path) -> int:
    step, _ = _newest_intact(directory)
    if step is None:
        raise UserError(f"no checkpoint in {directory}; train a model there first")
    return step


def _check_intact(directory: epath.Path, step: int) -> None:
    """Process 0 looks, the others are told."""
    refusal = None
    if jax.process_index() == 0:
        try:
            manifests.check_files(directory, step)
        except manifests.DamagedError as error:
            others = [s for s in manifests.committed_steps(directory) if s != step]
            refusal = UserError(
                f"damaged checkpoint: {error}; others in {directory}: {others}"
            )
        except UserError as error:
            refusal = error
    processes.raise_on_all(refusal, f"checkpoint {step} in {directory}")


def _absolute(directory: epath.PathLike) -> epath.Path:
    """Orbax refuses relative paths; a URL such as gs://... is none."""
    path = epath.Path(directory)
    return path if "://" in str(directory) else path.absolute()


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Without a sharding Orbax would take the one of the machine that saved."""
    if leaf.sharding is not None:
        return leaf
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


def _nest(leaves: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Leaves of any tree, by path, as nested dicts; empty arrays are left out.

    So the files do not depend on the containers' classes, and a part of the
    state can be read without them. Orbax refuses arrays without elements.
    """
    nested: dict[str, Any] = {}
    for path, leaf in leaves:
        if 0 in leaf.shape:
            continue
        node = nested
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return nested


def _unnest(nested: dict[str, Any], abstract: Any) -> Any:
    """The inverse of `_nest` for a tree like `abstract`."""
    leaves = []
    for path, leaf in manifests.leaves_by_path(abstract):
        if 0 in leaf.shape:
            leaves.append(jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding))
            continue
        node = nested
        for key in path:
            node = node[key]
        leaves.append(node)
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)
