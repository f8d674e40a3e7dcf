"""Norms against their formulas, with a learned scale and without."""

import jax
import numpy as np
import pytest

from moe_jax.layers.norms import NORMS, make_norm
from moe_jax.models import abstract_params, build_model
from moe_jax.parallel import path_name
from tests.models.tiny import VOCABULARY, tiny_config

pytestmark = pytest.mark.fast

EPSILON = 0.1  # large enough to be seen


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_is_its_formula_with_a_scale_and_without(kind, scaled):
    rng = np.random.default_rng(0)
    x, scale = rng.normal(2.0, 3.0, (2, 3, 5)), rng.normal(size=5)
    norm = make_norm(kind, EPSILON, np.float32, "norm", scale=scaled)
    own = {"scale": scale.astype(np.float32)} if scaled else {}
    start = jax.eval_shape(norm.init, jax.random.key(0), x.astype(np.float32))
    learned = {name for name in start.get("params", {}) if name != "bias"}
    assert learned == own.keys()
    if kind == "layernorm":
        own["bias"] = rng.normal(size=5).astype(np.float32)
    out = norm.apply({"params": own}, x.astype(np.float32))
    centred = x - x.mean(-1, keepdims=True) if kind == "layernorm" else x
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    expected = expected * own.get("scale", 1.0) + own.get("bias", 0.0)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_scales_lacks_just_those():
    def names(norm_scale):
        changes = {
            "model.norm_scale": norm_scale,
            "model.architecture": "encoder_decoder",
        }
        params = abstract_params(build_model(tiny_config(changes), VOCABULARY))
        return {path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)}

    scaled, plain = names(True), names(False)
    scales = {name for name in scaled if name.endswith("norm/scale")}
    # Both stacks: of attention, of the feed-forward layers, the final one.
    assert {name.split("/")[0] for name in scales} == {"encoder", "decoder"}
    assert scaled - plain == scales
    assert plain < scaled
