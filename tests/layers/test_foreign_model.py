"""The README's examples: the layer in a foreign model, and a foreign router."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe_jax import MoELayer
from moe_jax.routing import ROUTERS

README = pathlib.Path(__file__).parents[2] / "README.md"


def readme_code(name: str) -> str:
    """The code block behind a marker such as `<!-- example: foreign model -->`."""
    pattern = rf"<!-- example: {name} -->\s*```python\n(.*?)```"
    found = re.search(pattern, README.read_text(), re.DOTALL)
    assert found, f"README.md has lost its example {name!r}"
    return found[1]


@pytest.fixture(scope="module")
def example():
    """What the README's code defines, run as one jitted program."""
    code, names = compile(readme_code("foreign model"), str(README), "exec"), {}

    @jax.jit
    def run():
        exec(code, names)
        return {key: names[key] for key in ("params", "loss", "gradients", "metrics")}

    return names | run()


@pytest.mark.fast
def test_the_readmes_example_gives_a_gradient_to_every_parameter(example):
    assert np.isfinite(example["loss"])
    sizes = jax.tree.map(lambda g: np.abs(g).max(), example["gradients"])
    assert min(jax.tree.leaves(sizes)) > 0
    assert example["metrics"]["router/load"].shape == (4,)


@pytest.mark.fast
def test_the_readmes_example_learns_under_jit_with_optax(example):
    # Distinct inputs, so that there is something to tell apart.
    names = example["loss_fn"].__globals__
    names["x"] = jax.random.normal(jax.random.key(1), names["x"].shape)
    names["labels"] = np.arange(len(names["x"]))
    optimizer = optax.adam(3e-2)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            grad = jax.value_and_grad(example["loss_fn"], has_aux=True)
            (loss, _), gradients = grad(params)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), length=20)[1]

    losses = train(example["params"])
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.fast
def test_the_readmes_router_works_in_the_layer(monkeypatch):
    code = readme_code("new router")
    assert len(code.splitlines()) < 20
    monkeypatch.setitem(ROUTERS, "tempered", None)  # taken out again afterwards
    exec(compile(code, str(README), "exec"), {})
    layer = MoELayer(
        num_experts=4,
        d_ff=8,
        num_selected_experts=2,
        router="tempered",
        router_options={"temperature": 0.5},
        dispatcher="dropless",
    )
    x = jax.random.normal(jax.random.key(0), (1, 8, 3))
    variables = layer.init(jax.random.key(1), x, train=False)
    out, reports = layer.apply(variables, x, train=False)
    logits = x @ variables["params"]["router"]["kernel"]
    probs = jnp.sort(jax.nn.softmax(logits / 0.5), axis=-1)
    np.testing.assert_allclose(
        reports["router/gate"], probs[..., -2:].sum(axis=-1).mean(), rtol=1e-6
    )
    assert out.shape == x.shape
    assert reports["router/dropped"] == 0
