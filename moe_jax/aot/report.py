"""A train step compiled for a TPU slice that is not there, as facts and as a table."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.table import Table

from moe_jax.analysis import accounting
from moe_jax.analysis.describe import byte_size, make_table, vocab_size
from moe_jax.aot import hlo
from moe_jax.aot.collectives import (
    KINDS,
    Collective,
    find_collectives,
    spanned_axes,
)
from moe_jax.aot.estimate import StepTime, estimate_step_time
from moe_jax.aot.topology import Topology, open_topology
from moe_jax.training.checks import check_config
from moe_jax.training.experiment import Experiment, build_experiment

ACROSS_SLICES = "slices"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip's memory during a step.

    Attributes:
      parameters: its shards of them.
      optimizer: its shards of the optimizer's state.
      router_state: its shards of what routers keep beside parameters.
      batch: its rows of the batch.
      temporaries: activations, gradients, buffers; None if the step does not fit.
      other: the compiled program, padding of layouts, metrics; None likewise.
      total: the sum; None likewise.
      available: of the chip, by its data sheet.
      fits: whether the compiler placed everything.
      refusal: the compiler's own words if not, else "".
    """

    parameters: int
    optimizer: int
    router_state: int
    batch: int
    temporaries: int | None
    other: int | None
    total: int | None
    available: int
    fits: bool
    refusal: str


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of a step that are alike.

    Attributes:
      kind: such as `all-to-all`.
      axes: the mesh axes that they span, such as `data+expert`; `slices` if they go
        over the data center's network.
      times: how many of them a step runs.
      bytes: that one chip sends in a step.
    """

    kind: str
    axes: str
    times: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the compiled step says; `dataclasses.asdict` of it is JSON-able.

    Attributes:
      topology: name of the slice.
      num_slices: how many of them.
      device_kind: as JAX names it.
      chips: of all slices.
      mesh: devices along each axis.
      parameters: of the model.
      flops: of one step, forward and backward, on paper (`analysis.accounting`).
      flops_per_chip: an equal share of them.
      memory: of one chip.
      collectives: of one chip and step; () if the step does not fit.
      step_time: uncalibrated; None if the step does not fit.
      step_seconds: its sum; None if a part is unknown.
      unestimated: instructions a step of sorting and moving, for which the compiler
        gives no cycles.
      unknown_loops: loops whose rounds the program does not tell, counted once.
      compile_seconds: what the compiler took.
    """

    topology: str
    num_slices: int
    device_kind: str
    chips: int
    mesh: Mapping[str, int]
    parameters: int
    flops: int
    flops_per_chip: float
    memory: Memory
    collectives: Sequence[Traffic]
    step_time: StepTime | None
    step_seconds: float | None
    unestimated: int
    unknown_loops: int
    compile_seconds: float


def compile_step(config: ConfigDict, topology: str, num_slices: int = 1) -> Facts:
    """Compiles the train step of a config for TPU slices, from shapes alone.

    Args:
      config: any experiment config. `moe.grouped_matmul="auto"` means ragged_dot, as
        it does on a TPU.
      topology: name of a slice, such as `v5e:4x4`.
      num_slices: slices of that name.

    Raises:
      UserError: libtpu is missing or knows no such slice, or the config cannot work.
    """
    config = _for_tpu(config)
    check_config(config)
    vocabulary = vocab_size(config)
    slices = open_topology(topology, num_slices)
    experiment = build_experiment(config, vocabulary, slices.devices)
    lowered = experiment.train_step().lower(
        experiment.abstract, experiment.abstract_batch()
    )
    begin = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        compiled, refusal = None, str(error).split("\n")[0]
    else:
        refusal = ""
    seconds = time.perf_counter() - begin
    return _facts(experiment, slices, compiled, refusal, seconds)


def _for_tpu(config: ConfigDict) -> ConfigDict:
    """What "auto" would mean on the slice, rather than on this machine."""
    config = config.copy_and_resolve_references()
    if config.moe.grouped_matmul == "auto":
        config.moe.grouped_matmul = "ragged_dot"
    return config


def _facts(
    experiment: Experiment,
    slices: Topology,
    compiled: Any | None,
    refusal: str,
    seconds: float,
) -> Facts:
    config, params = experiment.config, experiment.abstract.params
    tokens = config.train.batch_size * accounting.tokens_per_row(config)
    flops = accounting.count_flops(params, config).training * tokens
    read = None if compiled is None else _read(compiled.as_text(), experiment, slices)
    step_time = read and read.step_time
    return Facts(
        topology=slices.name,
        num_slices=slices.num_slices,
        device_kind=slices.device_kind,
        chips=slices.chips,
        mesh=dict(experiment.mesh.shape),
        parameters=accounting.count_parameters(params, config).total,
        flops=flops,
        flops_per_chip=flops / slices.chips,
        memory=_memory(experiment, slices, compiled, refusal),
        collectives=read.traffic if read else (),
        step_time=step_time,
        step_seconds=step_time and step_time.total,
        unestimated=read.unestimated if read else 0,
        unknown_loops=read.unknown_loops if read else 0,
        compile_seconds=seconds,
    )


def _memory(
    experiment: Experiment, slices: Topology, compiled: Any | None, refusal: str
) -> Memory:
    chip, abstract = slices.chip, experiment.abstract
    state = {
        "parameters": abstract.params,
        "optimizer": abstract.opt_state,
        "router_state": abstract.router_state,
        "batch": experiment.abstract_batch(),
    }
    known = {name: chip.devices * shard_bytes(tree) for name, tree in state.items()}
    temporaries = other = total = None
    if compiled is not None:
        stats = compiled.memory_analysis()
        whole = (
            stats.argument_size_in_bytes
            + stats.output_size_in_bytes
            - stats.alias_size_in_bytes
            + stats.temp_size_in_bytes
            + stats.generated_code_size_in_bytes
        )
        total = chip.devices * whole
        temporaries = chip.devices * stats.temp_size_in_bytes
        other = total - temporaries - sum(known.values())
    return Memory(
        **known,
        temporaries=temporaries,
        other=other,
        total=total,
        available=chip.hbm_bytes,
        fits=total is not None and total <= chip.hbm_bytes,
        refusal=refusal,
    )


def shard_bytes(tree: Any) -> int:
    """Bytes of one device's shards of a tree of abstract, sharded arrays."""
    return accounting.tree_bytes(
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.sharding.shard_shape(leaf.shape), leaf.dtype
            ),
            tree,
        )
    )


@dataclasses.dataclass(frozen=True)
class _Read:
    traffic: tuple[Traffic, ...]
    step_time: StepTime
    unestimated: int
    unknown_loops: int


def _read(text: str, experiment: Experiment, slices: Topology) -> _Read:
    """What the optimized program says."""
    module = hlo.parse(text)
    runs = hlo.execution(module)
    found = find_collectives(module, runs, slices.num_slices)
    work = hlo.work(module, runs)
    # The slices' devices stand one after the other: data, outermost, crosses them.
    partitions = experiment.mesh.devices.flatten()[: module.num_partitions]
    shape = dict(experiment.mesh.shape)
    shape["data"] //= slices.num_slices
    traffic = _traffic(found, shape, slices.chip.devices)
    step_time = estimate_step_time(work, found, slices, partitions)
    return _Read(traffic, step_time, work.unestimated, len(runs.unknown_loops))


def _traffic(
    found: Sequence[Collective], shape: Mapping[str, int], devices_per_chip: int
) -> tuple[Traffic, ...]:
    times: Counter[tuple[str, str]] = Counter()
    sent: Counter[tuple[str, str]] = Counter()
    for one in found:
        axes = spanned_axes(one.groups, tuple(shape), tuple(shape.values()))
        key = one.kind, ACROSS_SLICES if one.crosses_slices else "+".join(axes)
        times[key] += one.times
        sent[key] += one.times * one.sent * devices_per_chip
    order = sorted(times, key=lambda key: (KINDS.index(key[0]), key[1]))
    return tuple(Traffic(*key, times[key], round(sent[key])) for key in order)


def to_table(facts: Facts) -> Table:
    """The facts for people."""
    table = make_table("", "", "")
    table.show_header = False
    for title, rows in _sections(facts):
        table.add_row(f"[bold]{title}[/bold]")
        for name, *cells in rows:
            table.add_row(f"  {name}", *cells)
        table.add_section()
    return table


def _sections(facts: Facts):
    """Yields titles with rows, each a name and cells."""
    slices = f"{facts.num_slices} x " if facts.num_slices > 1 else ""
    yield (
        "slice",
        [
            ("topology", f"{slices}{facts.topology}"),
            ("chips", f"{facts.chips:,}", facts.device_kind),
            ("mesh", ", ".join(f"{axis} {n}" for axis, n in facts.mesh.items())),
            ("compile time", f"{facts.compile_seconds:.1f} s"),
        ],
    )
    yield (
        "model",
        [
            ("parameters", f"{facts.parameters:,}"),
            ("FLOPs of a step", f"{facts.flops:.3g}"),
            ("FLOPs of a step and chip", f"{facts.flops_per_chip:.3g}"),
        ],
    )
    yield "memory of a chip", _memory_rows(facts.memory)
    if facts.collectives:
        rows = [
            (f"{one.kind} over {one.axes}", f"{one.times:,}", byte_size(one.bytes))
            for one in facts.collectives
        ]
        yield "collectives of a step, and bytes that a chip sends", rows
    if facts.step_time is not None:
        yield "time of a step, uncalibrated", _time_rows(facts)


def _memory_rows(memory: Memory) -> list[tuple[str, ...]]:
    names = ("parameters", "optimizer", "router_state", "batch", "temporaries", "other")
    rows = [
        (name.replace("_", " "), byte_size(getattr(memory, name)))
        for name in names
        if getattr(memory, name) is not None
    ]
    if memory.total is not None:
        rows.append(("total", byte_size(memory.total)))
    rows.append(("available", byte_size(memory.available)))
    rows.append(("fits", "yes" if memory.fits else "no"))
    return rows


def _time_rows(facts: Facts) -> list[tuple[str, ...]]:
    parts = dataclasses.asdict(facts.step_time)
    rows = [
        (name, "unknown" if seconds is None else duration(seconds))
        for name, seconds in parts.items()
        if seconds != 0
    ]
    total = facts.step_seconds
    rows.append(("total", "unknown" if total is None else duration(total)))
    if facts.unknown_loops:
        rows.append(("loops of unknown length, counted once", str(facts.unknown_loops)))
    return rows


def duration(seconds: float) -> str:
    """0.0123 -> "12.3 ms"; from a second on "1.23 s"."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
