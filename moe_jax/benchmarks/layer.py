"""The sparse layer against a dense feed-forward network on as many token-choices."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from moe_jax.benchmarks.timing import time_in_turn
from moe_jax.dispatch import DISPATCHERS
from moe_jax.layers.activations import activate, is_gated
from moe_jax.layers.moe import MoELayer
from moe_jax.training.throughput import step_memory

# Tokens of a group: the cost of einsum's masks grows with it, that of index tables
# does not, and larger groups drop less.
EINSUM_GROUP = 512

# Random routers that the rounds take in turn, and the layer's own initial size.
_ROUTERS = 8
_ROUTER_STDDEV = MoELayer.router_init_stddev

# Rounds until large arrays have found their place in memory.
_WARMUP = 3

ROUTINGS: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "balanced": {"pattern": "balanced"},
    "skewed": {"pattern": "skewed", "max_over_mean": 2.0},
}


# What `layer_rows` is timed without a filter: a few minutes on 2 cores.
DEFAULT_ROWS = (
    r"base/E(8K1|8K2|32K1)/(dropless|.*-1\.25)/random"
    r"|base/E(8|32)K1/dropless/(balanced|skewed)"
    r"|(mixtral|olmoe)/.*/(dropless|gather-1\.25)/random"
)


class Row(NamedTuple):
    """One measurement.

    Attributes:
      shape: name of the size of the layer.
      tokens: T.
      d_model: D.
      d_ff: F of an expert.
      activation: of expert and dense network.
      experts: E.
      k: K.
      capacity_factor: None for a dispatcher without slots.
      dispatcher: a name of `moe_jax.dispatch.DISPATCHERS`.
      group: S, tokens that compete for slots.
      routing: `random`, by a router as at its initialization; `balanced`, or
        `skewed` (largest load twice the mean), by force: every expert but the first has
        about the same.
    """

    shape: str
    tokens: int
    d_model: int
    d_ff: int
    activation: str
    experts: int
    k: int
    capacity_factor: float | None
    dispatcher: str
    group: int
    routing: str = "random"

    @property
    def name(self) -> str:
        """What `--filter` looks at, such as `base/E8K1/gather-1.25/random`."""
        slots = "" if self.capacity_factor is None else f"-{self.capacity_factor:g}"
        size = f"E{self.experts}K{self.k}"
        return f"{self.shape}/{size}/{self.dispatcher}{slots}/{self.routing}"


def layer_rows(tokens: int, d_model: int, d_ff: int) -> list[Row]:
    """All rows of the layer suite at one size.

    `base` is a relu expert of F at E = 8, 32, 64, 128 and K = 1, 2; `mixtral` SwiGLU
    experts of F at E = 8, K = 2 (Jiang et al. 2024, arXiv:2401.04088); `olmoe` SwiGLU
    experts of D / 2 at E = 64, K = 8 (Muennighoff et al. 2024, arXiv:2409.02060).
    """
    sizes = [("base", d_ff, "relu", e, k) for e in (8, 32, 64, 128) for k in (1, 2)]
    sizes.append(("mixtral", d_ff, "swiglu", 8, 2))
    sizes.append(("olmoe", d_model // 2, "swiglu", 64, 8))
    return [
        Row(shape, tokens, d_model, width, activation, e, k, *way, routing)
        for shape, width, activation, e, k in sizes
        for routing in ROUTINGS
        for way in _ways(tokens, (1.0, 1.25))
    ]


def scaling_rows(tokens: int, d_model: int, d_ff: int) -> list[Row]:
    """Cost against E at a fixed number of tokens, and against the group's size."""
    ways = list(_ways(tokens, (1.25,)))
    by_experts = [
        Row("experts", tokens, d_model, d_ff, "relu", e, 1, *way)
        for e in (2, 8, 32, 128)
        for way in ways
    ]
    by_group = [
        Row(f"group{size}", tokens, d_model, d_ff, "relu", 8, 1, 1.25, name, size)
        for size in (128, 256, 512, 1024, 2048, 4096)
        if tokens % size == 0
        for name in ("einsum", "gather")
    ]
    return by_experts + by_group


def _ways(
    tokens: int, factors: Sequence[float]
) -> Iterator[tuple[float | None, str, int]]:
    for name, move in DISPATCHERS.items():
        group = min(EINSUM_GROUP, tokens) if name == "einsum" else tokens
        for factor in factors if move.has_slots else (None,):
            yield factor, name, group


def select(rows: Sequence[Row], pattern: str) -> list[Row]:
    """The rows whose name contains a match of the regular expression."""
    return [row for row in rows if re.search(pattern, row.name)]


def benchmark_layer(
    rows: Sequence[Row], rounds: int, dtype: DTypeLike = jnp.float32
) -> dict[str, Any]:
    """Times forward and backward of each row's layer and of its dense twin.

    Gradients are those of tokens, router and experts. The twin is a network of the
    same D, F and activation on T * K tokens as a matrix, without any routing. Rows
    of one size are timed in turn with one twin, so that a machine's moods hit all
    alike.

    Args:
      rows: what to time.
      rounds: timed rounds of each.
      dtype: compute dtype.

    Returns:
      `device`, and `rows`: the fields of `Row` and `ratio`, the median over rounds
      of sparse over dense; `ms` and `dense_ms`, medians; `dropped`, the fraction of
      choices; `peak_bytes` of the compiled program.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.shape, row.experts, row.k, row.d_ff), []).append(row)
    measured = [
        result
        for group in groups.values()
        for result in _benchmark_group(group, rounds, dtype)
    ]
    return {"device": jax.devices()[0].device_kind, "rows": measured}


def format_rows(result: Mapping[str, Any]) -> str:
    """The result of `benchmark_layer` as a table."""
    lines = [
        f"{result['device']}; r = sparse / dense; limit of r/CF: 1; S = tokens a group",
        f"{'row':<36}{'S':>6}{'r':>7}{'r/CF':>7}{'dropped':>9}{'peak MB':>9}"
        f"{'ms':>8}{'dense ms':>9}",
    ]
    for values in result["rows"]:
        row = Row(*(values[name] for name in Row._fields))
        factor = row.capacity_factor or 1.0
        lines.append(
            f"{row.name:<36}{row.group:>6}{values['ratio']:>7.2f}"
            f"{values['ratio'] / factor:>7.2f}{values['dropped']:>8.2%} "
            f"{values['peak_bytes'] / 2**20:>8.0f}{values['ms']:>8.1f}"
            f"{values['dense_ms']:>9.1f}"
        )
    return "\n".join(lines)


def _benchmark_group(
    rows: Sequence[Row], rounds: int, dtype: DTypeLike
) -> list[dict[str, Any]]:
    print(f"{rows[0].name} and {len(rows) - 1} more", file=sys.stderr)
    dense, params = _dense(rows[0], dtype), _parameters(rows[0], dtype)
    sparse = {row.name: _Sparse(row, params, dtype) for row in rows}
    actions: dict[str, Callable[[], object]] = {
        name: one.run for name, one in sparse.items()
    }
    timings = time_in_turn({"dense": dense, **actions}, rounds, _WARMUP)
    return [
        row._asdict()
        | {
            "ratio": timings.ratio(row.name, "dense")[1],
            "ms": timings.median(row.name) * 1e3,
            "dense_ms": timings.median("dense") * 1e3,
            "dropped": sparse[row.name].dropped,
            "peak_bytes": step_memory(sparse[row.name].compiled),
        }
        for row in rows
    ]


class _Sparse:
    """A sparse layer with the gradients of one random batch.

    Each run has another of `_ROUTERS` random routers: how evenly one of them happens
    to route would otherwise decide the result.
    """

    def __init__(self, row: Row, params: Any, dtype: DTypeLike):
        layer = _layer(row, dtype)
        x, cotangent = (values[None] for values in _data(row, row.tokens, dtype))
        key = jax.random.key(0)

        def loss(params, x):
            out, reports = layer.apply(params, x, train=True, rngs={"router": key})
            return (out * cotangent).sum(), reports["router/dropped"]

        gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        self.compiled = gradient.lower(params, x).compile()
        variants = [_with_router(params, seed) for seed in range(_ROUTERS)]
        self.dropped = float(
            np.mean([self.compiled(variant, x)[0][1] for variant in variants])
        )
        self._variants, self._x = itertools.cycle(variants), x

    def run(self) -> None:
        """Once forward and back."""
        jax.block_until_ready(self.compiled(next(self._variants), self._x))


def _with_router(params: Any, seed: int) -> Any:
    """The parameters with a router as another seed initializes it."""
    kernel = params["params"]["router"]["kernel"]
    drawn = jax.random.normal(jax.random.key(seed), kernel.shape) * _ROUTER_STDDEV
    return {"params": {**params["params"], "router": {"kernel": drawn}}}


def _layer(row: Row, dtype: DTypeLike) -> MoELayer:
    options = ROUTINGS[row.routing]
    return MoELayer(
        num_experts=row.experts,
        d_ff=row.d_ff,
        num_selected_experts=row.k,
        router="forced" if options else "switch" if row.k == 1 else "topk",
        router_options=options,
        dispatcher=row.dispatcher,
        group_size=row.group,
        train_capacity_factor=row.capacity_factor or 1.0,
        activation=row.activation,
        dtype=dtype,
    )


def _parameters(row: Row, dtype: DTypeLike) -> Any:
    """The same for all rows of a size: held once, as they are most of the memory."""
    x = jnp.zeros((1, 1, row.d_model), dtype)
    init = jax.jit(
        lambda key: _layer(row, dtype).init(
            {"params": key, "router": key}, x, train=True
        )
    )
    return init(jax.random.key(0))


def _dense(row: Row, dtype: DTypeLike) -> Callable[[], None]:
    """Once forward and back through the dense network."""
    x, cotangent = _data(row, row.tokens * row.k, dtype)
    keys = iter(jax.random.split(jax.random.key(1), 3))

    def kernel(rows: int, columns: int) -> Array:
        return jax.random.normal(next(keys), (rows, columns)) * (0.1 / rows) ** 0.5

    kernels = {
        "wi": kernel(row.d_model, row.d_ff),
        "wo": kernel(row.d_ff, row.d_model),
    }
    if is_gated(row.activation):
        kernels["wg"] = kernel(row.d_model, row.d_ff)

    def loss(kernels, x):
        kernels = {name: kernel.astype(dtype) for name, kernel in kernels.items()}
        gate = x @ kernels["wg"] if "wg" in kernels else None
        hidden = activate(row.activation, x @ kernels["wi"], gate)
        return ((hidden @ kernels["wo"]) * cotangent).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    compiled = gradient.lower(kernels, x).compile()
    return lambda: jax.block_until_ready(compiled(kernels, x))


def _data(row: Row, tokens: int, dtype: DTypeLike) -> tuple[Array, Array]:
    keys = jax.random.split(jax.random.key(2))
    shape = (tokens, row.d_model)
    x, cotangent = (jax.random.normal(key, shape, dtype) for key in keys)
    return x, cotangent
