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
from jaxtyping import Array, Bool, Float, Int

from moe_jax import routing
from moe_jax.dispatch import DISPATCHERS, MIXING
from moe_jax.dispatch.regroup import limit_rows
from moe_jax.errors import UserError, check_choice
from moe_jax.layers.activations import ACTIVATIONS
from moe_jax.layers.exchange import exchange
from moe_jax.layers.experts import EXPERT_KINDS, ExpertBank
from moe_jax.layers.ffn import DenseFFN
from moe_jax.layers.grouping import group_size
from moe_jax.layers.router import RouterNet
from moe_jax.parallel.layout import GROUP_AXES, Layout
from moe_jax.routing.capacity import ROUNDINGS

ROUTING_UNITS = ("token", "prefix", "sentence", "task")

# The collection of what a router keeps that is no parameter.
ROUTER_STATE = "router_state"

# What routers are given whole; all else has an axis of groups.
_SHARED = frozenset({"bias", "thresholds", "salt"})


class MoELayer(nn.Module):
    """A mixture-of-experts layer with static capacity buffers.

    Needs nothing of this package's model or training loop. Parameters: `router`
    (see `RouterNet`), `experts` (see `ExpertBank`) and, with shared experts,
    `shared` (see `DenseFFN`). A router that asks for `bias`, `salt` or `recorded`
    finds them in the collection `router_state`, which no gradient reaches.

    Attributes:
      num_experts: E.
      d_ff: F, hidden width of one expert.
      expert_kind: `ffn`; `linear`: D to `d_out`, without hidden activations.
      d_out: width of the output, where no expert is shared; 0: D.
      num_selected_experts: K.
      num_shared_experts: experts that every token visits, as one FFN of that
        many times F (Dai et al. 2024, arXiv:2401.06066).
      router: a name of `moe_jax.routing.ROUTERS`.
      router_options: that router's own keyword arguments.
      router_net, router_hidden, router_init_stddev, router_frozen,
        router_input_dropout, jitter, jitter_target: see `RouterNet`.
      routing_unit: what the router sees of a token: `token` its features;
        `sentence` their mean over its document (Kudugunta et al. 2021,
        arXiv:2110.03742; sees the future); `prefix` their mean so far; `task` an
        embedding of its task.
      num_tasks: embeddings of routing unit `task`.
      dispatcher: `gather`, `einsum` or `dropless`; same result where nothing is
        dropped, and `dropless` never drops.
      grouped_matmul: how dropless experts multiply; see `ExpertBank`.
      group_size: S, tokens that compete for slots; 0: one sequence a group.
      train_capacity_factor: capacity factor in training.
      eval_capacity_factor: capacity factor otherwise.
      capacity_times_k, capacity_rounding, capacity_multiple, min_capacity: see
        `moe_jax.routing.expert_capacity`.
      allocation, overflow, reroute_tries, renormalize_kept: who gets the slots,
        and what becomes of the others; see `routing.allocate`.
      load_balance_counts, load_balance_at_balance, load_balance_scope,
        importance_on: see `moe_jax.routing.router_losses`.
      activation: relu, gelu, swiglu or geglu.
      expert_dropout: rate on the experts' hidden activations.
      init_scale: variance of an expert's kernel times its fan-in.
      out_scale: factor on that of the kernel to the output.
      expert_bias: `none`, `additive` or `multiplicative`; see `Experts`.
      router_dtype: of the router's logits and softmax.
      record_experts: also report each token's experts, -1 for a choice given up,
        as `router/experts` for router `replay`.
      layout: the mesh that groups and experts are spread over, for use under
        `jax.jit`; None: one device.
      dtype: compute dtype of the experts.
    """

    num_experts: int
    d_ff: int
    expert_kind: str = "ffn"
    d_out: int = 0
    num_selected_experts: int = 1
    num_shared_experts: int = 0
    router: str = "switch"
    router_options: Mapping[str, Any] = FrozenDict()
    router_net: str = "linear"
    router_hidden: int = 64
    router_init_stddev: float = 0.02
    router_frozen: bool = False
    router_input_dropout: float = 0.0
    jitter: float = 0.0
    jitter_target: str = "inputs"
    routing_unit: str = "token"
    num_tasks: int = 1
    dispatcher: str = "gather"
    grouped_matmul: str = "auto"
    group_size: int = 0
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float = 2.0
    capacity_times_k: bool = True
    capacity_rounding: str = "ceil"
    capacity_multiple: int = 1
    min_capacity: int = 4
    allocation: str = "choice_major"
    overflow: str = "drop"
    reroute_tries: int = 4
    renormalize_kept: bool = False
    load_balance_counts: str = "top1"
    load_balance_at_balance: str = "one"
    load_balance_scope: str = "group"
    importance_on: str = "gates"
    activation: str = "gelu"
    expert_dropout: float = 0.0
    init_scale: float = 0.1
    out_scale: float = 1.0
    expert_bias: str = "none"
    router_dtype: DTypeLike = jnp.float32
    record_experts: bool = False
    layout: Layout | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        train: bool,
        mask: Bool[Array, "batch length"] | None = None,
        token_ids: Int[Array, "batch length"] | None = None,
        segment_ids: Int[Array, "batch length"] | None = None,
        task_ids: Int[Array, "batch length"] | None = None,
    ) -> tuple[Float[Array, "batch length out"], dict[str, Array]]:
        """Applies the layer.

        Args:
          x: features; the caller adds the residual.
          train: training capacity, noise and dropout. Needs `rngs` with `router`
            where the router draws or jitters (evaluation too, where its policy
            there or the allocation is random), `dropout` where experts drop out.
          mask: False for padding, which then takes no slot and no part in losses
            and metrics; None: all tokens are real.
          token_ids: the vocabulary's ids, for routers that look at them.
          segment_ids: document of each token within its row, for routing units
            `prefix` and `sentence`; 0 is padding.
          task_ids: task, domain or language of each token.

        Returns:
          The output, exactly 0 for a dropped token without shared experts, in the
          dtype of the layer; and a flat dict of unscaled losses and metrics, those
          of `moe_jax.routing.router_losses` and `router_metrics`.

        Raises:
          UserError: the tokens cannot be cut into groups, an option is wrong, or
            ids that the router asks for are not given.
        """
        # Parameters do not depend on the groups: any dummy input initializes.
        wanted = 0 if self.is_initializing() else self.group_size
        size = group_size(x.shape[0], x.shape[1], wanted)
        self._check(size, train)
        tokens = x.reshape(-1, size, x.shape[-1])
        real = jnp.ones(x.shape[:2], bool) if mask is None else mask
        documents = real.astype(jnp.int32) if segment_ids is None else segment_ids
        seen = self._seen_by_router(x, documents, task_ids).reshape(tokens.shape)
        given = {
            "mask": real,
            "token_ids": token_ids,
            "task_ids": task_ids,
        }
        given = {
            name: ids.reshape(-1, size)
            for name, ids in given.items()
            if ids is not None
        }
        real = given["mask"]

        with jax.named_scope("router"):
            logits, decision, assignments = self._route(seen, given, train)
        mixed = self._exchange(decision, assignments, tokens, train)
        out = mixed.reshape(*x.shape[:2], -1)
        if self.num_shared_experts:
            out += self._shared_experts()(x.astype(self.dtype))

        reports = self._losses(decision, logits, real, x.shape[1])
        reports |= routing.router_metrics(decision, assignments, logits, real)
        if self.record_experts and isinstance(decision, routing.Routing):
            made = jnp.where(decision.wanted, decision.experts, -1)
            reports["router/experts"] = made.reshape(*x.shape[:2], -1)
        return out, reports

    def _losses(
        self,
        decision: routing.Decision,
        logits: Float[Array, "group token width"],
        real: Bool[Array, "group token"],
        sequence_length: int,
    ) -> dict[str, Array]:
        return routing.router_losses(
            decision,
            logits,
            real,
            counts=self.load_balance_counts,
            at_balance=self.load_balance_at_balance,
            scope=self.load_balance_scope,
            importance_on=self.importance_on,
            sequence_length=sequence_length,
        )

    def _check(self, tokens_per_group: int, train: bool) -> None:
        check_choice("moe.dispatcher", self.dispatcher, DISPATCHERS)
        check_choice("moe.routing_unit", self.routing_unit, ROUTING_UNITS)
        check_choice("moe.capacity_rounding", self.capacity_rounding, ROUNDINGS)
        check_choice("model.activation", self.activation, ACTIVATIONS)
        check_choice("moe.attention_experts", self.expert_kind, EXPERT_KINDS)
        if self.is_initializing():
            # A dummy input of one token says nothing about divisibility.
            tokens_per_group = self.group_size or self.num_experts
        sizes = self._sizes(tokens_per_group)
        routing.check_router(self.router, sizes, self.router_options, train=train)

    def _sizes(self, tokens_per_group: int) -> routing.Sizes:
        return routing.Sizes(
            self.num_experts,
            self.num_selected_experts,
            tokens_per_group,
            self._capacity(tokens_per_group, train=True),
        )

    def _route(
        self,
        tokens: Float[Array, "group token embed"],
        given: Mapping[str, Array],
        train: bool,
    ) -> tuple[
        Float[Array, "group token width"],
        routing.Decision,
        routing.Assignments | None,
    ]:
        """Logits, what the routing rule makes of them, and who gets a slot."""
        rule = routing.ROUTERS[self.router]
        groups, size = tokens.shape[:2]
        logits, extras = self._net(rule)(tokens, train=train)
        static = {
            "num_selected": self.num_selected_experts,
            "num_experts": self.num_experts,
            "capacity": self._capacity(size, train),
            "train": train,
        }
        arrays = {**given, **extras, **self._kept_state(tokens, rule.asks_for)}
        if "rng" in rule.asks_for:
            arrays["rng"] = routing.group_keys(self._key(size, train), groups)
        missing = sorted(rule.asks_for - arrays.keys() - static.keys())
        if missing:
            raise UserError(
                f"moe.router={self.router!r} needs {', '.join(missing)}: pass them to "
                "the layer"
            )
        options = {**routing.pick(static, rule.asks_for), **self.router_options}
        arrays = routing.pick(arrays, rule.asks_for)
        shared = routing.pick(arrays, _SHARED)
        grouped = {k: v for k, v in arrays.items() if k not in _SHARED}
        allocation, allocation_key = self._allocation(size, groups, train)

        def of_groups(grouped, shared):
            logits, mask, key, arrays = grouped
            decision, assignments = routing.decide(
                self.router,
                logits,
                {**arrays, **shared, **options},
                allocation,
                mask=mask,
                allocation_key=key,
            )
            return decision, self._fitting(assignments, groups)

        grouped = (logits, given["mask"], allocation_key, grouped)
        layout = self._layout(groups)
        if layout is None:
            return logits, *of_groups(grouped, shared)
        return logits, *layout.over_groups(of_groups, grouped, shared)

    @nn.nowrap
    def _fitting(
        self, assignments: routing.Assignments | None, groups: int
    ) -> routing.Assignments | None:
        """Of one device's dropless rows those that its buffers have room for.

        Args:
          assignments: of the device's own groups.
          groups: of all devices.
        """
        layout = self._layout(groups)
        if layout is None or DISPATCHERS[self.dispatcher].has_slots:
            return assignments
        shards, entries = layout.size("expert"), assignments.expert.size
        tokens = assignments.expert.shape[0] * assignments.num_tokens
        if shards == 1 or layout.exchange_of(tokens, entries) == "all_gather":
            return assignments
        return limit_rows(assignments, shards, layout.rows_per_peer(entries))

    @nn.nowrap
    def _layout(self, groups: int) -> Layout | None:
        """None where devices share groups: then XLA communicates as it sees fit.

        So it does for the one group of the dummy input that initializes.
        """
        layout = self.layout
        if layout is None or self.is_initializing():
            return None
        return None if groups % layout.size(*GROUP_AXES) else layout

    def _net(self, rule: routing.Router) -> RouterNet:
        width = routing.logits_width(self.router, self.num_experts, self.router_options)
        return RouterNet(
            width=width,
            num_experts=self.num_experts,
            extras=rule.asks_for & {"noise_logits", "thresholds"},
            kind=self.router_net,
            hidden=self.router_hidden,
            init_stddev=self.router_init_stddev,
            frozen=self.router_frozen,
            jitter=self.jitter,
            jitter_target=self.jitter_target,
            input_dropout=self.router_input_dropout,
            dtype=jnp.dtype(self.router_dtype),
            name="router",
        )

    def _key(self, tokens_per_group: int, train: bool) -> Array:
        """The router's key; a constant one where the router will not draw."""
        if self.has_rng("router"):
            return self.make_rng("router")
        sizes, options = self._sizes(tokens_per_group), self.router_options
        if routing.draws(self.router, sizes, options, train=train):
            raise UserError(
                f"moe.router={self.router!r} draws random numbers here: pass "
                "rngs={'router': key}"
            )
        return jax.random.key(0)

    def _seen_by_router(
        self,
        x: Float[Array, "batch length embed"],
        documents: Int[Array, "batch length"],
        task_ids: Int[Array, "batch length"] | None,
    ) -> Float[Array, "batch length embed"]:
        """What the router sees instead of each token, by `routing_unit`."""
        if self.routing_unit == "token":
            return x
        if self.routing_unit == "prefix":
            return routing.causal_segment_mean(x.astype(jnp.float32), documents)
        if self.routing_unit == "sentence":
            return routing.segment_mean(x.astype(jnp.float32), documents)
        if task_ids is None:
            raise UserError(
                "moe.routing_unit='task' needs task_ids: pass them to the layer"
            )
        shape = (self.num_tasks, x.shape[-1])
        table = self.param("task_embedding", nn.initializers.normal(1.0), shape)
        return jnp.take(table, task_ids, axis=0, mode="clip")

    def _kept_state(
        self, tokens: Float[Array, "group token embed"], names: frozenset[str]
    ) -> dict[str, Array]:
        """What the router keeps that is no parameter."""
        state = {}
        if "bias" in names:
            zeros = (jnp.zeros, (self.num_experts,), jnp.float32)
            state["bias"] = self.variable(ROUTER_STATE, "bias", *zeros).value
        if "salt" in names:
            state["salt"] = self.variable(
                ROUTER_STATE,
                "salt",
                lambda: jax.random.bits(self.make_rng("params"), (), jnp.uint32),
            ).value
        if "recorded" in names:
            shape = (*tokens.shape[:2], self.num_selected_experts)
            zeros = (jnp.zeros, shape, jnp.int32)
            recorded = self.variable(ROUTER_STATE, "recorded", *zeros).value
            state["recorded"] = recorded.reshape(shape)
        return state

    def _allocation(
        self, tokens_per_group: int, groups: int, train: bool
    ) -> tuple[routing.Allocation, Array | None]:
        """How choices get slots, and the groups' keys where that is random."""
        slotted = DISPATCHERS[self.dispatcher].has_slots
        allocation = routing.Allocation(
            self._capacity(tokens_per_group, train) if slotted else None,
            self.allocation,
            self.overflow,
            self.reroute_tries,
            self.renormalize_kept,
        )
        if not slotted or self.allocation != "random":
            return allocation, None
        if not self.has_rng("router"):
            raise UserError(
                "moe.allocation='random' draws random numbers: pass "
                "rngs={'router': key}"
            )
        return allocation, routing.group_keys(self.make_rng("router"), groups)

    def _exchange(
        self,
        decision: routing.Decision,
        assignments: routing.Assignments | None,
        tokens: Float[Array, "group token embed"],
        train: bool,
    ) -> Float[Array, "group token out"]:
        """Tokens to their experts and back."""
        mixes = isinstance(decision, routing.Mixing)
        if mixes and self.dispatcher != "einsum":
            raise UserError(
                f"moe.dispatcher={self.dispatcher!r}: moe.router={self.router!r} mixes "
                "all tokens in every slot; set moe.dispatcher='einsum'"
            )
        drops = train and self.expert_dropout > 0 and self.expert_kind == "ffn"
        return exchange(
            MIXING if mixes else DISPATCHERS[self.dispatcher],
            self._experts()(tokens.shape[-1]),
            decision if mixes else assignments,
            tokens.astype(self.dtype),
            key=self.make_rng("dropout") if drops else None,
            layout=self._layout(tokens.shape[0]),
        )

    def _capacity(self, tokens_per_group: int, train: bool) -> int:
        return routing.expert_capacity(
            tokens_per_group,
            self.num_experts,
            self.num_selected_experts,
            self.train_capacity_factor if train else self.eval_capacity_factor,
            times_k=self.capacity_times_k,
            rounding=self.capacity_rounding,
            multiple=self.capacity_multiple,
            minimum=self.min_capacity,
        )

    def _experts(self) -> ExpertBank:
        return ExpertBank(
            num_experts=self.num_experts,
            d_ff=self.d_ff,
            activation=self.activation,
            kind=self.expert_kind,
            d_out=self.d_out,
            bias=self.expert_bias,
            dropout=self.expert_dropout,
            init_scale=self.init_scale,
            out_scale=self.out_scale,
            grouped_matmul=self.grouped_matmul,
            dtype=self.dtype,
            name="experts",
        )

    def _shared_experts(self) -> DenseFFN:
        return DenseFFN(
            d_ff=self.num_shared_experts * self.d_ff,
            activation=self.activation,
            init_scale=self.init_scale,
            dtype=self.dtype,
            name="shared",
        )
