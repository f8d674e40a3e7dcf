"""The same experts in another forward pass: record them once, then replay them.

    recorder = with_recording(config, vocab_size)
    _, reports = recorder.apply(variables, tokens, segment_ids, positions, train=True,
                                rngs=rngs)
    again = replay_config(config)
    again.model.dtype = "bfloat16"            # or another dispatcher, other parameters
    model = build_model(again, vocab_size)
    variables = {"params": params, ROUTER_STATE: replay_state(again, reports)}
    logits, _ = model.apply(variables, tokens, segment_ids, positions, train=False)

What differs between the passes (rounding, noise, dropout, a few more updates) can
then no longer change who goes where; the gates are those of the second pass's own
router. Both passes see the same rows. A record is an int32 array [B, L, K] a sparse
layer, of any router of token choice, and stays on the device unless it is fetched.

With the same parameters, and routers that weigh the K experts by their renormalized
softmax, a replay gives the same logits, too, so long as the first pass had no jitter.
A choice that was given up, as GShard's second one is by chance, is recorded as -1 and
not asked for again.

Source: routing replay, Ma et al. 2025, arXiv:2510.11370.
"""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.models.build import LanguageModel, build_model
from moe_jax.models.pattern import model_depth
from moe_jax.models.stack import from_depth
from moe_jax.routing import logits_width

RECORD = "router/experts"


def with_recording(
    config: ConfigDict, vocab_size: int, mesh: Mesh | None = None
) -> LanguageModel:
    """Builds a config's model, which also reports the experts of each token.

    Its reports hold `router/experts` [layer, B, L, K], the choices of each sparse
    layer in order of depth, best first. Parameters and outputs are those of
    `build_model(config, vocab_size)`.

    Args:
      config, vocab_size, mesh: see `build_model`.
    """
    recording = config.copy_and_resolve_references()
    with recording.moe.unlocked():
        recording.moe.record_experts = True
    return build_model(recording, vocab_size, mesh)


def replay_config(config: ConfigDict, renormalize: bool = True) -> ConfigDict:
    """Returns a copy of `config` whose router replays what another run recorded.

    Args:
      config: the whole experiment, as it was recorded.
      renormalize: divide the gates of the K recorded experts by their sum; False
        for routers that do not, such as `switch`.

    Raises:
      UserError: the router's parameters do not fit router `replay`.
    """
    moe = config.moe
    options = moe.router_options.to_dict()
    if logits_width(moe.router, moe.num_experts, options) != moe.num_experts:
        raise UserError(
            f"moe.router={moe.router!r} has not one logit an expert, which "
            "moe.router='replay' weighs them by: its parameters do not fit; those of "
            "'topk' would"
        )
    return with_router(config, "replay", {"renormalize": renormalize})


def replay_state(
    config: ConfigDict, reports: Mapping[str, Array]
) -> dict[str, dict[str, Any]]:
    """The collection `router_state` that makes a model repeat recorded choices.

    Args:
      config: of the model that replays; see `replay_config`.
      reports: what a model of `with_recording` returned beside its logits.

    Raises:
      UserError: nothing was recorded, or not by a model of this depth and K.
    """
    if RECORD not in reports:
        raise UserError(
            f"the reports hold no {RECORD}: record with a model of with_recording, "
            "with sparse layers and a router of token choice, such as 'topk'"
        )
    recorded, depth = reports[RECORD], model_depth(config)
    layers = depth.num_sparse
    selected = config.moe.num_selected_experts
    if (recorded.shape[0], recorded.shape[-1]) != (layers, selected):
        raise UserError(
            f"{RECORD} holds {recorded.shape[0]} sparse layers with "
            f"{recorded.shape[-1]} experts a token; this model has {layers} with "
            f"moe.num_selected_experts={selected}"
        )
    by_place = from_depth(recorded, depth.sparse_places)
    flat = {(*place, "recorded"): own for place, own in by_place.items()}
    return {"blocks": unflatten_dict(flat)}


def with_router(
    config: ConfigDict, router: str, options: Mapping[str, Any]
) -> ConfigDict:
    """Returns a copy of `config` with another router, and exactly these options."""
    changed = config.copy_and_resolve_references()
    changed.moe.router = router
    changed.moe.router_options = ConfigDict(dict(options))
    changed.moe.router_options.unlock()
    return changed
