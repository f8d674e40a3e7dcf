"""What a config is before it runs: parameters, FLOPs, capacity, memory."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict
from rich.table import Table

from configs import twin
from moe_jax.analysis import accounting
from moe_jax.data import open_data
from moe_jax.data.extra_ids import extra_ids
from moe_jax.data.mixture import mixture_parts
from moe_jax.data.tokenizers import open_tokenizer
from moe_jax.dispatch import DISPATCHERS
from moe_jax.errors import UserError
from moe_jax.models import (
    abstract_params,
    build_model,
    model_depth,
    padded_vocab,
    stack_configs,
)
from moe_jax.parallel import param_axes
from moe_jax.training.checks import check_config
from moe_jax.training.optimizers import make_optimizer
from moe_jax.training.sparse_checks import sparse_causality


@dataclasses.dataclass(frozen=True)
class Description:
    """The costs of a config; `dataclasses.asdict` of it is JSON-able.

    Attributes:
      leading_layers: as in the config.
      block_pattern: as in the config.
      encoder_pattern: of the encoder; () without one.
      vocab_size: rows of the embedding table, padding included.
      parameters: see `accounting.ParameterCount`.
      flops: per token; see `accounting.FlopCount`.
      flops_per_row: forward, of one row of the batch.
      slots: for each stack, `tokens per group` S and the capacities C in `training`
        and `evaluation`; 0 without sparse layers, C without slots, too.
      tokens_per_step: of the whole batch, an encoder's included.
      training_flops: FLOPs of the whole run, `flops.training` for every token.
      state_bytes: see `accounting.state_bytes`.
      causality: whether tokens see later ones: `causal`, `drops` or `future`.
    """

    leading_layers: tuple[str, ...]
    block_pattern: tuple[str, ...]
    encoder_pattern: tuple[str, ...]
    vocab_size: int
    parameters: accounting.ParameterCount
    flops: accounting.FlopCount
    flops_per_row: int
    slots: Mapping[str, Mapping[str, int]]
    tokens_per_step: int
    training_flops: int
    state_bytes: Mapping[str, int]
    causality: str


def vocab_size(config: ConfigDict) -> int:
    """`model.vocab_size`, or else all ids of the data; builds no corpus.

    Raises:
      UserError: the tokenizer is needed and cannot be opened.
    """
    if config.model.vocab_size:
        return config.model.vocab_size
    data = config.data
    if {part.data.source for part in mixture_parts(data)} & {
        "arrayrecord",
        "synthetic",
    }:
        # They bring their tokenizer along, and are cheap to open.
        return open_data(config).vocab_size
    tokenizer = open_tokenizer(data.tokenizer, data.tokenizer_path)
    return extra_ids(data, tokenizer).vocab_size


def describe(config: ConfigDict) -> Description:
    """Works out the costs of a config; allocates and compiles nothing.

    Raises:
      UserError: the config cannot work.
    """
    check_config(config)
    tokens = vocab_size(config)
    params = abstract_params(build_model(config, tokens))
    flops = accounting.count_flops(params, config)
    stacks = stack_configs(config)
    per_row = accounting.tokens_per_row(config)
    tokens_per_step = config.train.batch_size * per_row
    optimizer = make_optimizer(config, param_axes(params))
    return Description(
        leading_layers=tuple(config.model.leading_layers),
        block_pattern=tuple(config.model.block_pattern),
        encoder_pattern=tuple(stacks["encoder"].model.block_pattern)
        if "encoder" in stacks
        else (),
        vocab_size=padded_vocab(config, tokens),
        parameters=accounting.count_parameters(params, config),
        flops=flops,
        flops_per_row=flops.forward * per_row,
        slots={name: _slots(own) for name, own in stacks.items()},
        tokens_per_step=tokens_per_step,
        training_flops=flops.training * tokens_per_step * config.train.num_steps,
        state_bytes=accounting.state_bytes(params, optimizer),
        causality=sparse_causality(config),
    )


def _slots(config: ConfigDict) -> dict[str, int]:
    """Group and capacities of a stack; `config`: see `stack_configs`."""
    sparse = model_depth(config).num_sparse > 0
    slots = sparse and DISPATCHERS[config.moe.dispatcher].has_slots
    return {
        "tokens per group": accounting.tokens_per_group(config) if sparse else 0,
        "training": accounting.capacity(config, train=True) if slots else 0,
        "evaluation": accounting.capacity(config, train=False) if slots else 0,
    }


def describe_with_twin(config: ConfigDict, match: str = "") -> dict[str, Description]:
    """Describes a config, and its dense twin if `match` names one.

    Raises:
      UserError: the config cannot work, or `match` is unknown.
    """
    described = {"model": describe(config)}
    if match:
        if match not in twin.MATCHES:
            raise UserError(
                f"--twin={match} is unknown; choose from {', '.join(twin.MATCHES)}"
            )
        described[f"dense twin ({match})"] = describe(twin.dense_twin(config, match))
    return described


def to_table(described: Mapping[str, Description]) -> Table:
    """One column per description."""
    table = make_table("", *described)
    for section, rows in _sections(list(described.values())):
        table.add_row(f"[bold]{section}[/bold]")
        for name, cells in rows:
            table.add_row(f"  {name}", *cells)
        table.add_section()
    return table


def _sections(described: Sequence[Description]):
    """Yields titles with rows, each a name and a cell per description."""

    def row(name, value_of, form=grouped):
        return name, [form(value_of(one)) for one in described]

    parts = [
        part
        for part in accounting.PARTS
        if any(one.parameters.by_part[part] for one in described)
    ]
    yield (
        "parameters",
        [
            row("total", lambda one: one.parameters.total),
            row("active", lambda one: one.parameters.active),
            row(
                "active, no embedding", lambda one: one.parameters.active_non_embedding
            ),
            *(
                row(
                    f"  {_words(part)}",
                    lambda one, part=part: one.parameters.by_part[part],
                )
                for part in parts
            ),
        ],
    )
    flop_parts = dict.fromkeys(part for one in described for part in one.flops.by_part)
    yield (
        "FLOPs per token",
        [
            row("training", lambda one: one.flops.training),
            row("training, as computed", lambda one: one.flops.training_with_padding),
            row("forward", lambda one: one.flops.forward),
            *(
                row(
                    f"  {_words(part)}",
                    lambda one, part=part: one.flops.by_part.get(part, 0),
                )
                for part in flop_parts
            ),
            row("experts, all slots", lambda one: one.flops.experts_with_padding),
            row("dispatch and combine", lambda one: one.flops.dispatch_combine),
            row("forward, one row", lambda one: one.flops_per_row),
        ],
    )
    for stack, slots in described[0].slots.items():
        yield (
            "slots" if len(described[0].slots) == 1 else f"slots, {stack}",
            [
                row(
                    name if name.startswith("tokens") else f"capacity, {name}",
                    lambda one, stack=stack, name=name: one.slots[stack][name],
                )
                for name in slots
            ],
        )
    yield (
        "memory, all devices together",
        [
            row(name, lambda one, name=name: one.state_bytes[name], byte_size)
            for name in described[0].state_bytes
        ],
    )
    yield (
        "run",
        [
            row("tokens per step", lambda one: one.tokens_per_step),
            row("FLOPs, training", lambda one: one.training_flops, "{:.3g}".format),
            row("causality of routing", lambda one: one.causality, str),
        ],
    )


def make_table(*names: str) -> Table:
    """A plain table; the first column is the rows' names."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left", no_wrap=index == 0)
    return table


def _words(part: str) -> str:
    return part.replace("_", " ").replace("ffn", "FFN")


def grouped(number: int) -> str:
    """1234567 -> "1,234,567"; 0 -> "-"."""
    return f"{number:,}" if number else "-"


def byte_size(number: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if number < 100 else f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:,.2f} TiB"
