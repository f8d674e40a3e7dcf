"""The sparse layer: group, route, allocate, dispatch, experts, combine.

x [B,L,D] -> [G,S,D] -> router (float32) -> Routing -> allocate(C) -> Assignments
               |                                           |
               +--------- dispatch -> [E,G,C,D] -> experts -> combine -> [B,L,D]
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from moe_jax import routing
from moe_jax.dispatch import DISPATCHERS
from moe_jax.errors import UserError, check_choice
from moe_jax.layers.activations import ACTIVATIONS
from moe_jax.layers.experts import ExpertBank
from moe_jax.routing.capacity import ROUNDINGS

JITTER_TARGETS = ("inputs", "logits")


class MoELayer(nn.Module):
    """A mixture-of-experts feed-forward layer with static capacity buffers.

    Needs nothing of this package's model or training loop. Parameters: `router`
    (kernel [D, E]) and `experts` (see `ExpertBank`).

    Attributes:
      num_experts: E.
      d_ff: F, hidden width of one expert.
      num_selected_experts: K.
      router: a name of `moe_jax.routing.ROUTERS`.
      router_options: that router's own keyword arguments.
      router_init_stddev: standard deviation of the router's initial kernel.
      jitter: multiplicative noise U[1-j, 1+j] on the router, in training.
      jitter_target: what the noise multiplies: the router's `inputs` or `logits`.
      dispatcher: `gather` or `einsum`; same result.
      group_size: S, tokens that compete for slots; 0: one sequence a group.
      train_capacity_factor: capacity factor in training.
      eval_capacity_factor: capacity factor otherwise.
      capacity_times_k, capacity_rounding, min_capacity: see
        `moe_jax.routing.expert_capacity`.
      allocation: order in which choices claim slots; see `routing.allocate`.
      load_balance_counts, load_balance_at_balance, load_balance_scope: see
        `moe_jax.routing.load_balancing_loss`.
      activation: relu, gelu, swiglu or geglu.
      expert_dropout: rate on the experts' hidden activations.
      init_scale: variance of an expert's kernel times its fan-in.
      dtype: compute dtype of the experts; the router runs in float32.
    """

    num_experts: int
    d_ff: int
    num_selected_experts: int = 1
    router: str = "switch"
    router_options: Mapping[str, Any] = FrozenDict()
    router_init_stddev: float = 0.02
    jitter: float = 0.0
    jitter_target: str = "inputs"
    dispatcher: str = "gather"
    group_size: int = 0
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float = 2.0
    capacity_times_k: bool = True
    capacity_rounding: str = "ceil"
    min_capacity: int = 4
    allocation: str = "choice_major"
    load_balance_counts: str = "top1"
    load_balance_at_balance: str = "one"
    load_balance_scope: str = "group"
    activation: str = "gelu"
    expert_dropout: float = 0.0
    init_scale: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        train: bool,
        mask: Bool[Array, "batch length"] | None = None,
    ) -> tuple[Float[Array, "batch length embed"], dict[str, Array]]:
        """Applies the layer.

        Args:
          x: features; the caller adds the residual.
          train: training capacity, noise and dropout. Needs `rngs` with `router`
            where the router draws or jitters (evaluation too, where its policy
            there is random), `dropout` where experts drop out.
          mask: False for padding, which then takes no slot and no part in losses
            and metrics; None: all tokens are real.

        Returns:
          The output, exactly 0 for a dropped token, in the dtype of the layer;
          and a flat dict of unscaled losses and metrics: `loss/load_balance`,
          `loss/router_z` and those of `moe_jax.routing.router_metrics`.

        Raises:
          UserError: the tokens cannot be cut into groups, or an option is wrong.
        """
        self._check()
        # Parameters do not depend on the groups: any dummy input initializes.
        wanted = 0 if self.is_initializing() else self.group_size
        size = group_size(x.shape[0], x.shape[1], wanted)
        tokens = x.reshape(-1, size, x.shape[-1])
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        real = real.reshape(-1, size)

        with jax.named_scope("router"):
            logits = self._logits(tokens, train)
            decision = self._route(logits, train)
            decision = routing.mask_padding(decision, real)
            assignments = routing.allocate(
                decision, self._capacity(size, train), self.allocation
            )
        move = DISPATCHERS[self.dispatcher]
        with jax.named_scope("dispatch"):
            slots = move.dispatch(assignments, tokens.astype(self.dtype))
        with jax.named_scope("experts"):
            outputs = self._experts()(slots, train=train)
        with jax.named_scope("combine"):
            mixed = move.combine(assignments, outputs)

        balance = routing.load_balancing_loss(
            decision,
            real,
            counts=self.load_balance_counts,
            at_balance=self.load_balance_at_balance,
            scope=self.load_balance_scope,
        )
        metrics = {
            "loss/load_balance": balance,
            "loss/router_z": routing.router_z_loss(logits, real),
            **routing.router_metrics(decision, assignments, real),
        }
        return mixed.reshape(x.shape), metrics

    def _check(self) -> None:
        routing.check_router(
            self.router,
            self.num_experts,
            self.num_selected_experts,
            self.router_options,
        )
        check_choice("moe.dispatcher", self.dispatcher, DISPATCHERS)
        check_choice("moe.jitter_target", self.jitter_target, JITTER_TARGETS)
        check_choice("moe.capacity_rounding", self.capacity_rounding, ROUNDINGS)
        check_choice("model.activation", self.activation, ACTIVATIONS)

    def _logits(
        self, tokens: Float[Array, "group token embed"], train: bool
    ) -> Float[Array, "group token expert"]:
        """Router logits in float32, whatever the model computes in."""
        inputs = tokens.astype(jnp.float32)
        noisy = train and self.jitter > 0
        if noisy and self.jitter_target == "inputs":
            inputs = self._jitter(inputs)
        logits = nn.Dense(
            self.num_experts,
            use_bias=False,
            kernel_init=nn.initializers.normal(self.router_init_stddev),
            dtype=jnp.float32,
            precision="highest",  # TPUs and TF32 would round float32 factors
            name="router",
        )(inputs)
        if noisy and self.jitter_target == "logits":
            logits = self._jitter(logits)
        return logits

    def _jitter(self, values: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        low, high = 1 - self.jitter, 1 + self.jitter
        key = self.make_rng("router")
        return values * jax.random.uniform(key, values.shape, minval=low, maxval=high)

    def _route(
        self, logits: Float[Array, "group token expert"], train: bool
    ) -> routing.Routing:
        router = routing.ROUTERS[self.router]
        draws = router.uses_rng and self.has_rng("router")
        return router.function(
            logits,
            num_selected=self.num_selected_experts,
            rng=self.make_rng("router") if draws else None,
            train=train,
            **self.router_options,
        )

    def _capacity(self, tokens_per_group: int, train: bool) -> int:
        return routing.expert_capacity(
            tokens_per_group,
            self.num_experts,
            self.num_selected_experts,
            self.train_capacity_factor if train else self.eval_capacity_factor,
            times_k=self.capacity_times_k,
            rounding=self.capacity_rounding,
            minimum=self.min_capacity,
        )

    def _experts(self) -> ExpertBank:
        return ExpertBank(
            num_experts=self.num_experts,
            d_ff=self.d_ff,
            activation=self.activation,
            dropout=self.expert_dropout,
            init_scale=self.init_scale,
            dtype=self.dtype,
            name="experts",
        )


def group_size(batch: int, length: int, wanted: int) -> int:
    """Returns S, the number of tokens in a group.

    Args:
      batch: sequences.
      length: tokens per sequence.
      wanted: S, which must divide batch * length; 0: one sequence.

    Raises:
      UserError: the tokens cannot be cut into groups of that size.
    """
    size = wanted or length
    if (batch * length) % size:
        raise UserError(
            f"moe.group_size={wanted} does not divide {batch} x {length} tokens "
            f"(batch x length); {length} (or 0: one sequence a group) would"
        )
    return size
