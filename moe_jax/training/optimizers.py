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

from moe_jax.errors import UserError, check_choice
from moe_jax.parallel import STACKING_AXES
from moe_jax.training.trainable import (
    Axes,
    check_trainable,
    group_mask,
    is_axes,
    map_axes,
    trainable_mask,
)

SCHEDULES = ("cosine", "rsqrt", "constant")
WARMUPS = ("linear", "constant")
OPTIMIZERS = ("adamw", "adafactor")
MOMENT_DTYPES = ("float32", "bfloat16")

# Groups of parameters with a learning rate of their own: {group: field}.
_SCALED_GROUPS = {
    "expert": "expert_learning_rate_scale",
    "router": "router_learning_rate_scale",
}


def check_optimizer(config: ConfigDict) -> None:
    """Checks what can be checked of `optimizer` without a model.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    options = config.optimizer
    check_trainable(config)
    check_choice("optimizer.warmup", options.warmup, WARMUPS)
    for group, field in _SCALED_GROUPS.items():
        if not options[field] > 0:
            raise UserError(
                f"optimizer.{field}={options[field]}: must be positive; to keep these "
                f"parameters as they are, use optimizer.trainable without {group}"
            )


def make_optimizer(config: ConfigDict, axes: Any) -> optax.GradientTransformation:
    """Builds the optimizer of a config.

    Clipping by global norm, then the update's direction, then decoupled weight
    decay on kernels and embeddings, then the learning rate, and its scale for
    experts and routers. All of it sees only the parameters that move (see
    `trainable`); the others stay what they are to the bit, and have no state.

    Args:
      config: reads `optimizer` and `moe.router_frozen`.
      axes: logical axes of each parameter, from `parallel.param_axes`.

    Raises:
      UserError: the config cannot work, or no parameter would move.
    """
    check_optimizer(config)
    mask = trainable_mask(config.optimizer, axes)
    if all(jax.tree.leaves(mask)):
        return _moving(config, axes)
    moving = jax.tree.map(
        lambda moves, names: names if moves else optax.MaskedNode(), mask, axes
    )
    labels = jax.tree.map(lambda moves: "moving" if moves else "frozen", mask)
    return optax.partition(
        {"moving": _moving(config, moving), "frozen": _still()}, labels
    )


def make_schedule(config: ConfigDict) -> optax.Schedule:
    """Learning rate of the update after `count` earlier ones.

    A warm-up of `warmup_steps`, `linear` up to the peak or `constant` at it; then
    `cosine` down to `final_fraction` of the peak at `decay_steps`, `rsqrt`
    (peak * sqrt(warmup_steps / t)), or `constant`. Updates t count from 1.

    T5's schedule is base / sqrt(max(t, k)), flat for the first k = 10^4 updates: it
    is `rsqrt` with `warmup="constant"`, `warmup_steps=10_000` and the peak
    base / sqrt(k), so that T5X's `1.0 * rsqrt_decay` is `learning_rate=0.01`. (T5X
    counts from 0: its rate of an update is ours of the one before.)

    Source: Raffel et al. 2020, arXiv:1910.10683, section 3.1.2.
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
    if options.warmup == "constant":
        before = optax.constant_schedule(peak)
    else:
        before = optax.linear_schedule(0.0, peak, max(warmup, 1))
    schedule = optax.join_schedules([before, decay], [warmup])
    # The first update is number 1: a rate of 0 would waste a batch.
    return lambda count: schedule(count + 1)


def _moving(config: ConfigDict, axes: Any) -> optax.GradientTransformation:
    """The optimizer of parameters that move; `axes` has holes for the others."""
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
        mask = map_axes(
            lambda _, names: (
                len(names) - _stacked(names) >= 2 and not (frozen and "router" in names)
            ),
            axes,
        )
        steps.append(optax.add_decayed_weights(options.weight_decay, mask))
    steps.append(optax.scale_by_learning_rate(make_schedule(config)))
    scales = {group: options[field] for group, field in _SCALED_GROUPS.items()}
    for group, scale in scales.items():
        if scale != 1.0:
            steps.append(optax.masked(optax.scale(scale), group_mask(group, axes)))
    return optax.chain(*steps)


def _still() -> optax.GradientTransformation:
    """Updates that change nothing: x + -0.0 is x to the bit, even where x is -0.0."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda x: jnp.full_like(x, -0.0), updates)
    )


def _adafactor(options: ConfigDict, axes: Any) -> optax.GradientTransformation:
    """Adafactor's direction, one set of statistics per layer and expert.

    The defaults are T5's: `decay_rate` 0.8, `clipping_threshold` 1, factored where
    both sides have `min_dim_size_to_factor` 128, times the parameter's root mean
    square, which counts as at least 1e-3 (T5's epsilon2; epsilon1 is `epsilon`), and
    no momentum. Kernels of attention are factored as the matrices that they are:
    embed against heads and head_dim together.

    Source: Shazeer and Stern 2018, arXiv:1804.04235; batching the expert axis as
    in the code of ST-MoE, and joining the axes of heads as in that of T5.
    """
    factored = optax.scale_by_factored_rms(
        decay_rate=options.decay_rate,
        min_dim_size_to_factor=options.min_dim_size_to_factor,
        epsilon=options.epsilon,
    )
    rest = []
    if options.clipping_threshold:
        rest.append(optax.clip_by_block_rms(options.clipping_threshold))
    if options.multiply_by_parameter_scale:
        rest.append(optax.scale_by_param_block_rms())
    if options.momentum:
        dtype = jnp.dtype(options.momentum_dtype)
        rest.append(optax.ema(options.momentum, debias=False, accumulator_dtype=dtype))
    return optax.chain(
        _as_matrices(_per_tensor(factored, axes), axes),
        _per_tensor(optax.chain(*rest), axes),
    )


def _as_matrices(
    transform: optax.GradientTransformation, axes: Any
) -> optax.GradientTransformation:
    """Shows `transform` the axes of heads and their width as one."""

    def joined(names: Axes, leaf: Any) -> Any:
        if not {"heads", "kv_heads"} & {*names} or "head_dim" not in names:
            return leaf
        last = names.index("head_dim")
        shape = leaf.shape
        return leaf.reshape(*shape[: last - 1], -1, *shape[last + 1 :])

    def join(tree: Any) -> Any:
        return jax.tree.map(joined, axes, tree, is_leaf=is_axes)

    def update(updates, state, params):
        new, state = transform.update(join(updates), state, join(params))
        return jax.tree.map(lambda x, like: x.reshape(like.shape), new, updates), state

    return optax.GradientTransformation(
        lambda params: transform.init(join(params)), update
    )


def _per_tensor(
    transform: optax.GradientTransformation, axes: Any
) -> optax.GradientTransformation:
    """Runs `transform` on each tensor of the stacks that parameters are."""
    depths = map_axes(lambda _, names: _stacked(names), axes)
    transforms = {n: _vmapped(transform, n) for n in set(jax.tree.leaves(depths))}
    return optax.partition(transforms, depths)


def _vmapped(
    transform: optax.GradientTransformation, depth: int
) -> optax.GradientTransformation:
    """Runs `transform` on each tensor of stacks with `depth` leading axes."""
    init, update = transform.init, transform.update
    for _ in range(depth):
        init, update = jax.vmap(init), jax.vmap(update)
    return optax.GradientTransformation(init, update)


def _stacked(names: Axes) -> int:
    """How many leading axes only stack separate tensors."""
    count = 0
    while count < len(names) and names[count] in STACKING_AXES:
        count += 1
    return count
