"""Where a number came from: code, versions, devices, data, and the command line."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

import moe_jax

_PACKAGES = (
    "moe_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)


def describe_environment() -> dict[str, Any]:
    """JSON-able: all that two runs must share to give the same bits, and more.

    `git` is None where the package is not in a checkout, else the commit, the
    difference of the Python files to it, and the Python files git does not know.
    """
    devices = jax.devices()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": _git(pathlib.Path(moe_jax.__file__).parent),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_cores": _cpu_cores(),
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "LIBTPU_INIT_ARGS": os.environ.get("LIBTPU_INIT_ARGS", ""),
        "x64": jax.config.jax_enable_x64,
        "matmul_precision": jax.config.jax_default_matmul_precision,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # moe_jax itself, run from a checkout


def _cpu_cores() -> int:
    """Cores this process may use: XLA splits reductions by them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(package: pathlib.Path) -> dict[str, Any] | None:
    # An installed package may lie in a folder of somebody else's repository.
    if _run_git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _run_git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    python = ("--", ":/*.py")
    untracked = _run_git(
        package, "ls-files", "--others", "--exclude-standard", "--full-name", *python
    )
    return {
        "commit": commit.strip(),
        "diff": _run_git(package, "diff", "HEAD", *python) or "",
        "untracked": (untracked or "").splitlines(),
    }


def _run_git(folder: pathlib.Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git or it refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
