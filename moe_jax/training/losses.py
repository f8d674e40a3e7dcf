"""The training loss, written as a sum over microbatches.

Everything a microbatch returns is its contribution to the whole batch: token
losses are divided by the real tokens of the whole batch, so that gradient
accumulation adds up to the same loss and the same gradient. Load balancing over
groups is averaged over microbatches, which hold equally many groups; over the
`global` scope it is the mean of the microbatches' own values.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from moe_jax.layers import ROUTER_STATE
from moe_jax.models import LanguageModel

Batch = Mapping[str, Array]

_NO_STATE: Mapping[str, Any] = FrozenDict()

# Losses of routers, by the name of their weight in the config's `loss`.
ROUTER_LOSSES = (
    "load_balance",
    "importance",
    "load",
    "router_z",
    "router_max_z",
    "router_entropy",
    "usage_variance",
    "usage_entropy",
    "thresholds",
)

# Losses over pools of tokens (groups, or all that are there), not over tokens:
# each microbatch has its own, and they are averaged.
_POOLED = tuple(
    f"loss/{name}"
    for name in ROUTER_LOSSES
    if name not in ("router_z", "router_max_z", "router_entropy")
)


# By stack of layers, the segments of its tokens.
_SEGMENTS = {"encoder": "encoder_segment_ids", "decoder": "segment_ids"}

# What a model is given by name, where the batch has it.
_BY_NAME = (
    "task_ids",
    "prefix",
    "encoder_tokens",
    "encoder_segment_ids",
    "encoder_positions",
    "encoder_task_ids",
)


class Totals(NamedTuple):
    """What the whole batch is divided by.

    Attributes:
      targets: sum of the targets' weights.
      tokens: tokens that the sparse layers of each stack count.
      microbatches: how many there are.
      mask_padding: sparse layers count real tokens alone, not padding.
    """

    targets: Float[Array, ""]
    tokens: Mapping[str, Float[Array, ""]]
    microbatches: int
    mask_padding: bool


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that teaches another by its probabilities (distillation).

        L = (1 - w) CE(true token) + w t^2 CE(softmax(taught / t), softmax(logits / t))

    It computes in evaluation mode, at its own capacity for that.

    Attributes:
      model: the teacher, which takes the student's batches.
      soft_weight: w.
      temperature: t.

    Source: Hinton et al. 2015, arXiv:1503.02531; Fedus et al. 2021,
    arXiv:2101.03961, section 4.2 (w = 0.25).
    """

    model: LanguageModel
    soft_weight: float
    temperature: float


def batch_totals(batch: Batch, microbatches: int, mask_padding: bool) -> Totals:
    """Counts a whole batch; at least 1 each, so that an empty one gives 0."""
    tokens = _routed_tokens(batch, mask_padding)
    return Totals(
        jnp.maximum(batch["weights"].sum(), 1.0),
        {stack: jnp.maximum(count, 1.0) for stack, count in tokens.items()},
        microbatches,
        mask_padding,
    )


def _routed_tokens(batch: Batch, mask_padding: bool) -> dict[str, Float[Array, ""]]:
    """By stack of layers, the tokens that it routes."""
    counts = {}
    for stack, name in _SEGMENTS.items():
        if name in batch:
            real = (batch[name] > 0) | (not mask_padding)
            counts[stack] = real.sum().astype(jnp.float32)
    return counts


def token_losses(
    logits: Float[Array, "batch length vocab"], targets: Int[Array, "batch length"]
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Returns each token's cross entropy in nats, and its log-partition squared."""
    log_partition = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return log_partition - chosen, log_partition**2


def soft_cross_entropy(
    logits: Float[Array, "batch length vocab"],
    taught: Float[Array, "batch length vocab"],
    temperature: float,
) -> Float[Array, "batch length"]:
    """t^2 times the cross entropy to the teacher's probabilities, in nats.

    Args:
      logits: of the student.
      taught: of the teacher; no gradient reaches it.
      temperature: t.
    """
    wanted = jax.nn.softmax(jax.lax.stop_gradient(taught) / temperature, axis=-1)
    found = jax.nn.log_softmax(logits / temperature, axis=-1)
    return -(temperature**2) * (wanted * found).sum(axis=-1)


def microbatch_loss(
    params: Any,
    batch: Batch,
    totals: Totals,
    *,
    model: LanguageModel,
    weights: ConfigDict,
    train: bool,
    rngs: Mapping[str, Array],
    router_state: Any = _NO_STATE,
    teacher: Teacher | None = None,
    taught_by: Any = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Contribution of one microbatch to the loss and the metrics of its batch.

    Args:
      params: the model's parameters.
      batch: one microbatch.
      totals: counts of the whole batch.
      model: the model.
      weights: the config's `loss`.
      train: training or evaluation.
      rngs: keys for `router` and, in training, `dropout`.
      router_state: what routers keep beside the parameters.
      teacher: whose probabilities the model learns, too; None: there is none.
      taught_by: the teacher's variables.

    Returns:
      `loss/total` and a dict of metrics, each to be summed over microbatches.
    """
    variables = {"params": params, ROUTER_STATE: router_state}
    logits, reports = apply_model(model, variables, batch, train, rngs)
    cross_entropy, squared = token_losses(logits, batch["targets"])
    per_target = batch["weights"] / totals.targets
    metrics = {
        "loss/cross_entropy": (cross_entropy * per_target).sum(),
        "loss/lm_z": (squared * per_target).sum(),
        **_router_reports(reports, batch, totals, weights.layer_reduction),
    }
    total = metrics["loss/cross_entropy"]
    if teacher is not None:
        taught, _ = apply_model(teacher.model, taught_by, batch, False, rngs)
        soft = soft_cross_entropy(logits, taught, teacher.temperature)
        metrics["loss/soft"] = (soft * per_target).sum()
        total = (1 - teacher.soft_weight) * total
        total += teacher.soft_weight * metrics["loss/soft"]
    total += weights.lm_z * metrics["loss/lm_z"]
    for name in (*ROUTER_LOSSES, "attention_z"):
        if f"loss/{name}" in metrics:
            total += weights[name] * metrics[f"loss/{name}"]
    return total, {"loss/total": total, **metrics}


def apply_model(
    model: LanguageModel,
    variables: Any,
    batch: Batch,
    train: bool,
    rngs: Mapping[str, Array],
) -> tuple[Array, Mapping[str, Any]]:
    """Logits and reports of a batch; see the model's `__call__`."""
    return model.apply(
        variables,
        batch["tokens"],
        batch["segment_ids"],
        batch["positions"],
        train=train,
        rngs=rngs,
        **{name: batch[name] for name in _BY_NAME if name in batch},
    )


def _router_reports(
    reports: Mapping[str, Any], batch: Batch, totals: Totals, layer_reduction: str
) -> dict[str, Array]:
    """Reduces the layers' reports over layers, and weighs them.

    Losses follow `layer_reduction`, metrics are means over layers; what is no
    scalar, such as the load of each expert, is kept by layer, the encoder's first
    (left out where its experts are not as many as the decoder's). With an encoder,
    `encoder/...` and `decoder/...` hold each one's own, too.
    """
    apart = reports.keys() == {"encoder", "decoder"}
    by_stack = reports if apart else {"decoder": reports}
    tokens = _routed_tokens(batch, totals.mask_padding)
    everywhere: dict[str, list[Array]] = {}
    reduced = {}

    def reduce(name: str, by_layer: Array) -> Array:
        if by_layer.ndim > 1:
            return by_layer
        summed = name.startswith("loss/") and layer_reduction == "sum"
        return by_layer.sum() if summed else by_layer.mean()

    for stack, own in by_stack.items():
        share = tokens[stack] / totals.tokens[stack]
        for name, by_layer in own.items():
            value = by_layer * (1 / totals.microbatches if name in _POOLED else share)
            everywhere.setdefault(name, []).append(value)
            if apart:
                reduced[f"{stack}/{name}"] = reduce(name, value)
    for name, values in everywhere.items():
        if len({value.shape[1:] for value in values}) == 1:
            reduced[name] = reduce(name, jnp.concatenate(values))
    return reduced
