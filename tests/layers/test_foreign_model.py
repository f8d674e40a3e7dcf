"""The README's example: the sparse layer in a model that is not of this package."""

import pathlib
import re

import jax
import numpy as np
import optax
import pytest

README = pathlib.Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def example():
    """What the README's code defines, run as one jitted program."""
    pattern = r"<!-- example: foreign model -->\s*```python\n(.*?)```"
    found = re.search(pattern, README.read_text(), re.DOTALL)
    assert found, "README.md has lost its example of a foreign model"
    code, names = compile(found[1], str(README), "exec"), {}

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
