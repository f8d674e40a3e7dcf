"""Refuses a config that cannot work, before anything is read or compiled."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from moe_jax.data.checks import check_data
from moe_jax.dispatch import DISPATCHERS
from moe_jax.dispatch.grouped import IMPLEMENTATIONS as GROUPED_MATMULS
from moe_jax.errors import UserError
from moe_jax.layers import (
    ACTIVATIONS,
    EXPERT_BIASES,
    EXPERT_KINDS,
    IMPLEMENTATIONS,
    JITTER_TARGETS,
    NETS,
    NORMS,
    ROUTING_UNITS,
)
from moe_jax.models import head_dim, model_depth, stack_configs
from moe_jax.models.pattern import ARCHITECTURES
from moe_jax.models.stack import REMAT
from moe_jax.parallel.layout import EXCHANGES
from moe_jax.routing.allocate import ORDERS, OVERFLOWS
from moe_jax.routing.capacity import ROUNDINGS
from moe_jax.routing.losses import AT_BALANCE, COUNTS, IMPORTANCE_ON, SCOPES
from moe_jax.routing.routers.loss_free import RULES
from moe_jax.training.optimizers import (
    MOMENT_DTYPES,
    OPTIMIZERS,
    SCHEDULES,
    check_optimizer,
)
from moe_jax.training.sparse_checks import check_sparse

# Fields that take one of a few names.
CHOICES = {
    "model.architecture": ARCHITECTURES,
    "model.activation": ACTIVATIONS,
    "model.positions": ("rotary", "relative", "none"),
    "model.norm": tuple(NORMS),
    "model.attention": IMPLEMENTATIONS,
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", *REMAT),
    "moe.dispatcher": tuple(DISPATCHERS),
    "moe.attention_experts": EXPERT_KINDS,
    "moe.expert_bias": EXPERT_BIASES,
    "moe.router_dtype": ("float32", "bfloat16"),
    "moe.jitter_target": JITTER_TARGETS,
    "moe.capacity_rounding": tuple(ROUNDINGS),
    "moe.allocation": ORDERS,
    "moe.overflow": OVERFLOWS,
    "moe.router_net": NETS,
    "moe.routing_unit": ROUTING_UNITS,
    "moe.bias_update": RULES,
    "moe.grouped_matmul": GROUPED_MATMULS,
    "loss.importance_on": IMPORTANCE_ON,
    "loss.load_balance_counts": COUNTS,
    "loss.load_balance_at_balance": AT_BALANCE,
    "loss.load_balance_scope": SCOPES,
    "loss.layer_reduction": ("mean", "sum"),
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": SCHEDULES,
    "optimizer.adamw.mu_dtype": MOMENT_DTYPES,
    "optimizer.adafactor.momentum_dtype": MOMENT_DTYPES,
    "mesh.fsdp": ("none", "optimizer", "all"),
    "mesh.exchange": EXCHANGES,
    "mesh.exchange_dtype": ("", "bfloat16", "float32"),
}

_AT_LEAST = {
    "seed": 0,
    "model.d_model": 1,
    "model.d_ff": 1,
    "model.num_heads": 1,
    "model.num_kv_heads": 1,
    "model.head_dim": 0,
    "model.encoder_layers": 0,
    "model.relative_buckets": 4,
    "model.relative_max_distance": 1,
    "model.vocab_size": 0,
    "model.vocab_multiple": 1,
    "model.scan_unroll": 1,
    "moe.num_experts": 1,
    "moe.d_ff": 1,
    "moe.group_size": 0,
    "moe.min_capacity": 0,
    "moe.capacity_multiple": 1,
    "moe.num_shared_experts": 0,
    "moe.router_hidden": 1,
    "moe.num_tasks": 1,
    "moe.reroute_tries": 1,
    "optimizer.warmup_steps": 0,
    "optimizer.decay_steps": 1,
    "data.sequence_length": 2,
    "distill.step": 0,
    "train.num_steps": 1,
    "train.batch_size": 1,
    "train.accumulation_steps": 1,
    "train.eval_batch_size": 1,
    "train.eval_batches": 1,
    "train.eval_interval": 0,
    "train.log_interval": 1,
    "train.checkpoint_interval": 0,
    "train.keep_last": 1,
    "train.keep_best": 0,
}

_POSITIVE = (
    "model.norm_epsilon",
    "model.rope_base",
    "model.init_scale",
    "moe.init_scale",
    "moe.train_capacity_factor",
    "moe.eval_capacity_factor",
    "optimizer.learning_rate",
    "distill.temperature",
    "mesh.exchange_factor",
)

_NOT_NEGATIVE = (
    "moe.router_init_stddev",
    "moe.bias_update_rate",
    "loss.load_balance",
    "loss.importance",
    "loss.load",
    "loss.router_z",
    "loss.router_max_z",
    "loss.usage_variance",
    "loss.usage_entropy",
    "loss.thresholds",
    "loss.lm_z",
    "loss.attention_z",
    "optimizer.clip_norm",
    "optimizer.weight_decay",
    "optimizer.final_fraction",
    "optimizer.adafactor.clipping_threshold",
)

_RATES = (
    "model.dropout",
    "moe.expert_dropout",
    "moe.jitter",
    "moe.router_input_dropout",
    "optimizer.adamw.b1",
    "optimizer.adamw.b2",
    "optimizer.adafactor.momentum",
)


def check_config(config: ConfigDict) -> None:
    """Checks all that can be checked without the data and the devices.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    for field, choices in CHOICES.items():
        if field_value(config, field) not in choices:
            _refuse(config, field, f"choose from {', '.join(choices)}")
    for field, least in _AT_LEAST.items():
        if field_value(config, field) < least:
            _refuse(config, field, f"must be at least {least}")
    for field in _POSITIVE:
        if not field_value(config, field) > 0:
            _refuse(config, field, "must be positive")
    for field in _NOT_NEGATIVE:
        if not field_value(config, field) >= 0:
            _refuse(config, field, "must not be negative")
    for field in _RATES:
        if not 0 <= field_value(config, field) < 1:
            _refuse(config, field, "must be at least 0 and below 1")
    if not 0 <= config.distill.soft_weight <= 1:
        _refuse(config, "distill.soft_weight", "must be at least 0 and at most 1")
    _check_attention(config)
    _check_batches(config)
    _check_schedule(config)
    check_data(config)
    check_optimizer(config)
    for name, own in stack_configs(config).items():
        if model_depth(own).num_sparse:
            _check_stack(name, own)


def _check_stack(name: str, config: ConfigDict) -> None:
    """Checks the sparse layers of one stack; `config`: see `stack_configs`."""
    if name == "decoder":
        check_sparse(config)
        return
    for field, choices in CHOICES.items():
        if field.startswith("moe.") and field_value(config, field) not in choices:
            _refuse(config, field, f"choose from {', '.join(choices)}")
    try:
        check_sparse(config, causal=False)
    except UserError as error:
        raise UserError(f"in the encoder (moe.encoder): {error}") from error


def check_mesh(config: ConfigDict, mesh: Mapping[str, int]) -> None:
    """Checks that every axis of the mesh divides what it shards.

    Args:
      config: the experiment.
      mesh: devices along each axis, as in `jax.sharding.Mesh.shape`.

    Raises:
      UserError: one line with the field, its value and the mesh axis.
    """
    model, train = config.model, config.train
    rows, width = mesh["data"] * mesh["expert"], mesh["model"]
    microbatch = train.batch_size // train.accumulation_steps
    sharded = [
        ("train.batch_size / accumulation_steps", microbatch, "data x expert", rows),
        ("train.eval_batch_size", train.eval_batch_size, "data x expert", rows),
        ("model.num_heads", model.num_heads, "model", width),
        ("model.num_kv_heads", model.num_kv_heads, "model", width),
        ("model.vocab_multiple", model.vocab_multiple, "model", width),
    ]
    if config.mesh.fsdp != "none":
        sharded.append(("model.d_model", model.d_model, "data x expert", rows))
    stacks = stack_configs(config).values()
    for own in stacks:
        sharded += _sharded_layers(own, mesh)
    for field, size, axis, devices in sharded:
        if size % devices:
            problem = (
                f"{field}={size} is not divisible by the {devices} devices of the "
                f"mesh axis {axis}"
            )
            if field.endswith("accumulation_steps") and train.batch_size % rows == 0:
                most = train.batch_size // rows
                problem += f"; train.accumulation_steps={most} would do, or a divisor"
            raise UserError(problem)
    for own in stacks:
        if model_depth(own).num_sparse:
            _check_groups(own, rows, shared=mesh["expert"] == 1)


def _sharded_layers(
    config: ConfigDict, mesh: Mapping[str, int]
) -> list[tuple[str, int, str, int]]:
    """What the layers of a stack shard: field, size, mesh axis and its devices."""
    model, depth, width = config.model, model_depth(config), mesh["model"]
    attention = depth.sparse_attention and config.moe.attention_experts == "ffn"
    hidden, sharded = attention, []
    for ffn in itertools.chain(*(k.ffns for k in (*depth.leading, *depth.pattern))):
        if ffn.name == "dense":
            d_ff = ffn.d_ff or model.d_ff
            sharded.append(("hidden width of a dense layer", d_ff, "model", width))
        hidden |= ffn.name == "moe"
    if depth.num_sparse:
        experts = config.moe.num_experts
        if mesh["expert"] > experts:
            raise UserError(
                f"mesh.expert={mesh['expert']}: more shards than moe.num_experts="
                f"{experts}; use at most {experts}"
            )
        sharded.append(("moe.num_experts", experts, "expert", mesh["expert"]))
    if hidden:
        sharded.append(("moe.d_ff", config.moe.d_ff, "model", width))
    if attention and config.mesh.fsdp != "none":
        queries = model.num_heads * head_dim(config)
        both = 2 * model.num_kv_heads * head_dim(config)
        sharded += [
            ("model.num_heads * head_dim", queries, "data", mesh["data"]),
            ("2 * model.num_kv_heads * head_dim", both, "data", mesh["data"]),
        ]
    return sharded


def _check_groups(config: ConfigDict, devices: int, shared: bool) -> None:
    """Each device routes whole groups of its own, or else they communicate.

    Args:
      config: the experiment, whose rows share out evenly.
      devices: along the mesh axes data and expert.
      shared: devices may share groups, with a warning; not where experts are spread.
    """
    train, length = config.train, config.data.sequence_length
    size = config.moe.group_size or length
    microbatch = train.batch_size // train.accumulation_steps
    for field, batch in (
        ("train.batch_size / accumulation_steps", microbatch),
        ("train.eval_batch_size", train.eval_batch_size),
    ):
        tokens = batch * length // devices
        if tokens % size:
            rows = devices * size // math.gcd(devices * size, length)
            problem = (
                f"moe.group_size={size}: a device of data x expert={devices} has "
                f"{tokens} tokens of {field}={batch}, which is not a whole number of "
                f"groups; moe.group_size={math.gcd(tokens, size)} works, or a multiple "
                f"of {rows} for {field}"
            )
            if not shared:
                raise UserError(problem)
            logging.log_first_n(
                logging.WARNING, "devices share groups, which is slow: %s", 1, problem
            )


def field_value(config: ConfigDict, field: str) -> Any:
    """The value at a dotted path such as `model.d_ff`."""
    value = config
    for name in field.split("."):
        value = value[name]
    return value


def _refuse(config: ConfigDict, field: str, advice: str) -> None:
    raise UserError(f"{field}={field_value(config, field)!r}: {advice}")


def _check_attention(config: ConfigDict) -> None:
    model = config.model
    if not model.head_dim and model.d_model % model.num_heads:
        divisors = [n for n in range(1, model.num_heads + 1) if model.d_model % n == 0]
        raise UserError(
            f"model.num_heads={model.num_heads} does not divide "
            f"model.d_model={model.d_model}; {divisors[-1]} would, or set "
            "model.head_dim"
        )
    if model.num_heads % model.num_kv_heads:
        raise UserError(
            f"model.num_kv_heads={model.num_kv_heads} does not divide "
            f"model.num_heads={model.num_heads}"
        )
    if head_dim(config) % 2 and model.positions == "rotary":
        raise UserError(
            f"a head is {head_dim(config)} wide; rotary positions need an even width: "
            "change model.num_heads or model.head_dim"
        )
    exact = model.relative_buckets // (2 if model.architecture == "decoder" else 4)
    if model.positions == "relative" and (
        model.relative_buckets % 4 or model.relative_max_distance <= exact
    ):
        raise UserError(
            f"model.relative_buckets={model.relative_buckets}, "
            f"model.relative_max_distance={model.relative_max_distance}: the first must "
            "be a multiple of 4, the second more than half of it; T5: 32 and 128"
        )
    if model.attention == "cudnn" and model.dtype == "float32":
        raise UserError(
            "model.attention='cudnn' needs model.dtype='bfloat16'; 'auto' takes what "
            "works"
        )


def _check_schedule(config: ConfigDict) -> None:
    options = config.optimizer
    if options.schedule == "cosine" and options.decay_steps <= options.warmup_steps:
        raise UserError(
            f"optimizer.decay_steps={options.decay_steps} must be more than "
            f"optimizer.warmup_steps={options.warmup_steps}, which it includes"
        )
    if options.schedule == "rsqrt" and options.warmup_steps < 1:
        raise UserError(
            f"optimizer.warmup_steps={options.warmup_steps} must be at least 1 for "
            "optimizer.schedule='rsqrt', which falls from there"
        )


def _check_batches(config: ConfigDict) -> None:
    train = config.train
    if train.batch_size % train.accumulation_steps:
        raise UserError(
            f"train.accumulation_steps={train.accumulation_steps} does not divide "
            f"train.batch_size={train.batch_size}"
        )
