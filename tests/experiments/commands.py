"""Runs the commands as a user would."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m experiments.NAME ARGUMENTS`, from the repository's root."""
    return python("-m", f"experiments.{name}", *arguments)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS`, from the repository's root."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=300,
    )
