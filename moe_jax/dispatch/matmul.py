"""A matmul of one expert's rows, to be batched over experts by `jax.vmap`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Rows below which a CPU spends more on packing the kernel than on transposing rows.
_FEW_ROWS = 384


def matmul(
    rows: Float[Array, "*rows embed"], kernel: Float[Array, "embed mlp"]
) -> Float[Array, "*rows mlp"]:
    """rows @ kernel, the same on every backend.

    On a CPU, XLA hands the product of few rows and a large kernel to a routine that
    first copies the kernel to its own layout, which for 128 rows is a third of the
    work; the product with the transposed rows goes to one that does not.
    """
    # With more than two axes, XLA transposes rows to contract them with each other.
    flat = _matmul(rows.reshape(-1, rows.shape[-1]), kernel)
    return flat.reshape(*rows.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _matmul(
    rows: Float[Array, "row embed"], kernel: Float[Array, "embed mlp"]
) -> Float[Array, "row mlp"]:
    if rows.shape[0] >= _FEW_ROWS:
        return rows @ kernel
    return jax.lax.platform_dependent(rows, kernel, cpu=_by_columns, default=jnp.matmul)


def _by_columns(rows: Array, kernel: Array) -> Array:
    # XLA would put the transposition back into the product but for the barrier.
    columns = jax.lax.optimization_barrier(rows.T)
    return jax.lax.dot_general(columns, kernel, (((0,), (0,)), ((), ())))


def _forward(rows, kernel):
    return _matmul(rows, kernel), (rows, kernel)


def _backward(residuals, cotangent):
    rows, kernel = residuals
    d_kernel = jax.lax.dot_general(rows, cotangent, (((0,), (0,)), ((), ())))
    return cotangent @ kernel.T, d_kernel


_matmul.defvjp(_forward, _backward)
