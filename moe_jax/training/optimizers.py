"""Optimizers and learning-rate schedules, all from optax.

What is ours is the axes: a parameter of this code base is a stack of tensors
over layers and experts, and Adafactor's statistics belong to one tensor of the
stack, never to several. optax alone would factor the two largest axes, whatever
they mean, and take one root mean square over all layers and experts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from moe_jax.parallel import STACKING_AXES

SCHEDULES = ("cosine", "rsqrt", "constant")
OPTIMIZERS = ("adamw", "adafactor")
MOMENT_DTYPES = ("float32", "bfloat16")


def make_optimizer(config: ConfigDict, axes: Any) -> optax.GradientTransformation:
    """Builds the optimizer of a config.

    Clipping by global norm, then the update's direction, then decoupled weight
    decay on kernels and embeddings, then the learning rate.

    Args:
      config: reads `optimizer`.
      axes: logical axes of each parameter, from `parallel.param_axes`.
    """
    options = config.optimizer
    steps = []
    if options.clip_norm:
        steps.append(optax.clip_by_global_norm(options.clip_norm))
    if options.name == "adamw":
        adam = options.adamw
        steps.append(
            optax.scale_by_adam(
                adam.b1, adam.b2, adam.epsilon, mu_dtype=jnp.dtype(adam.mu_dtype)
            )
        )
    else:
        steps.append(_adafactor(options.adafactor, axes))
    if options.weight_decay:
        frozen = config.moe.router_frozen  # decay would move it all the same
        mask = _map_axes(
            lambda names: (
                len(names) - _stacked(names) >= 2 and not (frozen and "router" in names)
            ),
            axes,
        )
        steps.append(optax.add_decayed_weights(options.weight_decay, mask))
    steps.append(optax.scale_by_learning_rate(make_schedule(config)))
    return optax.chain(*steps)


def make_schedule(config: ConfigDict) -> optax.Schedule:
    """Learning rate of the update after `count` earlier ones.

    Linear warm-up that reaches the peak at update number `warmup_steps`, then
    `cosine` down to `final_fraction` of the peak at `decay_steps`, `rsqrt`
    (peak * sqrt(warmup_steps / t)), or `constant`.
    """
    options = config.optimizer
    peak, warmup = options.learning_rate, options.warmup_steps
    if options.schedule == "cosine":
        decay = optax.cosine_decay_schedule(
            peak, max(options.decay_steps - warmup, 1), options.final_fraction
        )
    elif options.schedule == "rsqrt":
        start = max(warmup, 1)

        def decay(count):
            return peak * jnp.sqrt(start / (start + count))

    else:
        decay = optax.constant_schedule(peak)
    ramp = optax.linear_schedule(0.0, peak, max(warmup, 1))
    schedule = optax.join_schedules([ramp, decay], [warmup])
    # The first update is number 1: a rate of 0 would waste a batch.
    return lambda count: schedule(count + 1)


def _adafactor(options: ConfigDict, axes: Any) -> optax.GradientTransformation:
    """Adafactor's direction, one set of statistics per layer and expert.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; batching the expert axis as
    in the code of ST-MoE.
    """
    core = optax.chain(
        optax.adafactor(
            learning_rate=None,
            min_dim_size_to_factor=options.min_dim_size_to_factor,
            decay_rate=options.decay_rate,
            multiply_by_parameter_scale=options.multiply_by_parameter_scale,
            clipping_threshold=options.clipping_threshold or None,
            momentum=options.momentum or None,
            dtype_momentum=jnp.dtype(options.momentum_dtype),
            eps=options.epsilon,
        ),
        optax.scale(-1.0),  # optax has already turned it into a descent step
    )
    depths = _map_axes(_stacked, axes)
    transforms = {n: _vmapped(core, n) for n in set(jax.tree.leaves(depths))}
    return optax.partition(transforms, depths)


def _vmapped(
    transform: optax.GradientTransformation, depth: int
) -> optax.GradientTransformation:
    """Runs `transform` on each tensor of stacks with `depth` leading axes."""
    init, update = transform.init, transform.update
    for _ in range(depth):
        init, update = jax.vmap(init), jax.vmap(update)
    return optax.GradientTransformation(init, update)


def _stacked(names: tuple[str, ...]) -> int:
    """How many leading axes only stack separate tensors."""
    count = 0
    while count < len(names) and names[count] in STACKING_AXES:
        count += 1
    return count


def _map_axes(function: Any, axes: Any) -> Any:
    return jax.tree.map(function, axes, is_leaf=lambda node: isinstance(node, tuple))
