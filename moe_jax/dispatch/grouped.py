"""Rows grouped by expert, and a matmul of each group with its own kernel.

Axes: M rows, E experts, D width, F width of the result.
"""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.dispatch.blocks import by_expert

IMPLEMENTATIONS = ("auto", "ragged_dot", "tokamax", "blocks")


class Grouped(NamedTuple):
    """Rows of all experts, one expert after the other.

    Attributes:
      rows: those of expert 0, then of expert 1, and so on; past the last, 0.
      sizes: how many rows each expert has.
      entry: which entry of all groups each row holds; their number: none. None where
        no one asks.
    """

    rows: Float[Array, "row embed"]
    sizes: Int[Array, " expert"]
    entry: Int[Array, " row"] | None = None


def grouped_matmul(
    rows: Float[Array, "row embed"],
    kernel: Float[Array, "expert embed mlp"],
    sizes: Int[Array, " expert"],
    implementation: str = "auto",
) -> Float[Array, "row mlp"]:
    """Multiplies each expert's rows with that expert's matrix.

    Args:
      rows: as in `Grouped`.
      kernel: one matrix an expert.
      sizes: as in `Grouped`.
      implementation: one of `IMPLEMENTATIONS`; see `choose_implementation`.

    Returns:
      A row each; rows past the last expert's are 0, and get and give no gradient.

    Raises:
      ValueError: `implementation` is unknown, or not installed.
    """
    implementation = choose_implementation(implementation)
    if implementation == "blocks":
        return by_expert(_matmul, kernel, rows, sizes)
    # A grouped kernel leaves what it does not visit as it finds it.
    used = (jnp.arange(rows.shape[0]) < sizes.sum())[:, None]
    rows = jnp.where(used, rows, 0)
    return jnp.where(used, _kernel_of(implementation)(rows, kernel, sizes), 0)


def choose_implementation(name: str) -> str:
    """Returns what `auto` stands for on this process's backend, or else `name`.

    - `ragged_dot`: `jax.lax.ragged_dot`, a grouped kernel on TPU. On CPU it does E
      times the work, and on GPU it may.
    - `tokamax`: `tokamax.ragged_dot` (its own kernels on TPU and GPU), an extra.
    - `blocks`: plain matmuls on static chunks of rows; see `blocks.by_expert`.
    - `auto`: blocks on CPU; elsewhere tokamax where installed, else ragged_dot.

    Raises:
      ValueError: the name is unknown, or not installed.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"grouped_matmul={name!r} is unknown; choose from "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    installed = importlib.util.find_spec("tokamax") is not None
    if name == "tokamax" and not installed:
        raise ValueError(
            "grouped_matmul='tokamax' needs the package tokamax (pip install "
            "tokamax), or grouped_matmul='auto'"
        )
    if name != "auto":
        return name
    if jax.default_backend() == "cpu":
        return "blocks"
    return "tokamax" if installed else "ragged_dot"


def _kernel_of(implementation: str):
    if implementation == "tokamax":
        import tokamax

        return tokamax.ragged_dot
    return jax.lax.ragged_dot


def _matmul(kernel: Array, rows: Array, keys: None) -> Array:
    del keys
    return rows @ kernel
