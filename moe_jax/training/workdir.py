"""A run's folder, and what makes two starts the same run.

`config.json` is the whole resolved config, `environment.json` what it ran on.
The identity fields of a config say which numbers come out; a folder is one
identity on one data set, started any number of times.
"""

import fnmatch
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.parallel import processes
from moe_jax.training import files
from moe_jax.training.environment import describe_environment

CONFIG = "config.json"
ENVIRONMENT = "environment.json"

# A network file system may show a new file to other machines later.
_SHARING_SECONDS = 30

# May lie in a folder that is not yet a run: a start cut short, and the log into
# which the starting command's output goes.
_BEFORE_A_RUN = (ENVIRONMENT, f"*.json{files.SUFFIX}", "log.txt", "*.log")

# May differ between two starts of one run: where it runs, when it stops, what it
# writes. The schedule's horizon is `optimizer.decay_steps`, not here.
RUNTIME_FIELDS = (
    "mesh.*",
    "train.num_steps",
    "train.*_interval",
    "train.keep_last",
    "train.keep_best",
    "train.eval_batches",
    "train.eval_batch_size",
    "data.cache_dir",
)
# May differ where the data's fingerprint says that the same was found there.
_PATH_FIELDS = ("path", "tokenizer_path", "cache_dir")


def identity(config: ConfigDict) -> dict[str, Any]:
    """The fields that decide a run's numbers, as {"group.field": JSON value}."""
    return {
        name: value
        for name, value in _flat(_jsonable(config.to_dict())).items()
        if not any(fnmatch.fnmatchcase(name, field) for field in RUNTIME_FIELDS)
    }


def open_workdir(
    config: ConfigDict,
    workdir: epath.PathLike,
    data_fingerprint: str,
    data_description: Mapping[str, Any],
) -> bool:
    """Starts a run's folder, or finds that `workdir` holds this very run.

    Writes `environment.json` (an earlier start's is kept in its `earlier`), then
    `config.json`. In a run of several processes all call; process 0 writes.

    Args:
      config: the resolved config.
      workdir: local or `gs://`; made if it does not exist.
      data_fingerprint: of the data that `config` opens.
      data_description: JSON-able, recorded beside it.

    Returns:
      True if the folder held the run already, to be resumed.

    Raises:
      UserError: it holds another run, or something else. Nothing was changed.
    """
    workdir = epath.Path(workdir)
    resumes, refusal = False, None
    if jax.process_index() == 0:
        try:
            resumes = _holds_run(workdir)
            data = {"fingerprint": data_fingerprint, **data_description}
            _write(config, workdir, data, resuming=resumes)
        except UserError as error:
            refusal = error
    processes.raise_on_all(refusal, f"workdir={workdir}")
    if jax.process_count() > 1:
        _check_shared(workdir)
    return bool(processes.agreed(resumes))


def shared_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that must be the same on every process of a run: all but paths."""
    return _without_paths(_flat(_jsonable(config.to_dict())))


def to_json(config: ConfigDict) -> str:
    """The config as `config.json` holds it; tuples become lists."""
    return json.dumps(config.to_dict(), indent=1)


def load_config(workdir: epath.PathLike, schema: ConfigDict) -> ConfigDict:
    """The config of the run in `workdir`, with `schema`'s types and locks.

    Args:
      workdir: a run's folder.
      schema: every field with its default, which stands where an older run's
        config does not have the field.

    Raises:
      UserError: no run there, or its config does not fit the schema.
    """
    path = epath.Path(workdir) / CONFIG
    if not path.exists():
        raise UserError(f"workdir={workdir} holds no run: {path} does not exist")
    return read_config(path, schema)


def read_config(path: epath.PathLike, schema: ConfigDict) -> ConfigDict:
    """The config in a file like `config.json`; see `load_config`."""
    path = epath.Path(path)
    config = schema.copy_and_resolve_references()
    try:
        _fill(config, _tuples(json.loads(path.read_text())))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not fit this version's config: {reason}"
        ) from None
    return config


def _holds_run(workdir: epath.Path) -> bool:
    if not workdir.exists():
        return False
    if (workdir / CONFIG).exists():
        return True
    names = sorted(
        path.name
        for path in workdir.iterdir()
        if not any(fnmatch.fnmatchcase(path.name, ours) for ours in _BEFORE_A_RUN)
    )
    if names:
        raise UserError(
            f"workdir={workdir} is not empty and holds no run (no {CONFIG}; it has "
            f"{', '.join(names[:3])}); use an empty or a new folder"
        )
    return False


def _write(config: ConfigDict, workdir: epath.Path, data: dict, resuming: bool) -> None:
    earlier = []
    if resuming:
        before = _read_json(workdir / ENVIRONMENT)
        _check_same_run(config, workdir, before["data"]["fingerprint"], data)
        earlier = [*before.pop("earlier"), before]
    environment = {**describe_environment(), "data": data, "earlier": earlier}
    # The config goes last: a folder without it is not yet a run.
    files.write_whole(workdir / ENVIRONMENT, json.dumps(environment, indent=1))
    files.write_whole(workdir / CONFIG, to_json(config))


def _check_shared(workdir: epath.Path) -> None:
    """Refuses a folder in which a process does not find what process 0 wrote."""
    path = workdir / ENVIRONMENT
    written = processes.agreed(_checksum(path))
    deadline = time.monotonic() + _SHARING_SECONDS
    while _checksum(path) != written and time.monotonic() < deadline:
        time.sleep(0.5)
    if blind := processes.which(_checksum(path) != written):
        raise UserError(
            f"workdir={workdir} is not one folder for all: process "
            f"{', '.join(map(str, blind))} does not find there what process 0 wrote; "
            "use a folder that every machine mounts, or gs://"
        )


def _checksum(path: epath.Path) -> int:
    """Not negative, and below 2^31; of a file that is not there, that of nothing."""
    return zlib.crc32(path.read_bytes() if path.exists() else b"") >> 1


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}), so it is unknown which run this is; "
            "restore the file, or use another workdir"
        ) from None


def _check_same_run(
    config: ConfigDict, workdir: epath.Path, fingerprint: str, data: dict
) -> None:
    saved = ConfigDict(_read_json(workdir / CONFIG))
    same_data = fingerprint == data["fingerprint"]
    before, now = identity(saved), identity(config)
    if same_data:
        before, now = _without_paths(before), _without_paths(now)
    lines = [
        f"{name}: run has {_shown(before, name)}, config has {_shown(now, name)}"
        for name in sorted(before.keys() | now.keys())
        if _shown(before, name) != _shown(now, name)
    ]
    if not same_data:
        lines.append(
            f"data fingerprint: run has {fingerprint}, config has {data['fingerprint']}"
        )
    if lines:
        raise UserError(
            f"workdir={workdir} holds another run ({'; '.join(lines)}); use another "
            "workdir, or the run's own settings"
        )


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name], sort_keys=True) if name in fields else "nothing"


def _without_paths(fields: dict[str, Any]) -> dict[str, Any]:
    fields = {
        name: value
        for name, value in fields.items()
        if name not in {f"data.{path}" for path in _PATH_FIELDS}
    }
    fields["data.mixture"] = [
        {key: value for key, value in source.items() if key not in _PATH_FIELDS}
        for source in fields["data.mixture"]
    ]
    return fields


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _tuples(value: Any) -> Any:
    """JSON has no tuples, configs have no lists."""
    if isinstance(value, Mapping):
        return {key: _tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def _fill(config: ConfigDict, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in config and isinstance(config[name], ConfigDict):
            _fill(config[name], value)
        else:
            config[name] = value
