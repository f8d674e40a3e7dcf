"""Switch Transformers against Hugging Face's own, random and tiny."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.interop import (
    export_switch,
    import_switch,
    read_folder,
    switch_config,
    write_folder,
)
from moe_jax.layers.relative import relative_bucket
from moe_jax.models import build_model
from moe_jax.models.decoding import continue_rows

torch = pytest.importorskip("torch", reason="pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="pip install -e '.[oracle]'")

pytestmark = pytest.mark.slow

VOCABULARY = 61
SHAPES = {
    "every second, drops": {"expert_capacity": 3},
    "every second, room for all": {"expert_capacity": 64},
    "every layer, drops": {
        "expert_capacity": 2,
        "num_sparse_encoder_layers": 2,
        "num_sparse_decoder_layers": 2,
        "num_layers": 2,
        "num_decoder_layers": 2,
    },
    "other depths": {
        "num_layers": 6,
        "num_sparse_encoder_layers": 2,
        "num_decoder_layers": 4,
        "num_sparse_decoder_layers": 2,
        "expert_capacity": 2,
        "d_kv": 6,
    },
    "untied": {"tie_word_embeddings": False, "expert_capacity": 3},
}


@functools.cache
def oracle(name):
    """Their model, its config, and tokens: inputs with padding, and targets."""
    sizes = {
        "num_layers": 4,
        "num_sparse_encoder_layers": 2,
        "num_decoder_layers": 4,
        "num_sparse_decoder_layers": 2,
    }
    config = transformers.SwitchTransformersConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        d_ff=24,
        num_heads=2,
        num_experts=4,
        router_jitter_noise=0.0,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        **({"d_kv": 8} | sizes | SHAPES[name]),
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.SwitchTransformersForConditionalGeneration(config).eval()
    for stack in (model.encoder, model.decoder):  # apart if the head is untied
        stack.embed_tokens.weight = model.shared.weight
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "router" in key:  # near-uniform at first: no choice would be clear
                value *= 30
            if key == "lm_head.weight":  # logits of order 1, as of a tied head
                value *= 16**-0.5
            if "relative_attention_bias" in key:
                value.normal_()
    rng = np.random.default_rng(0)
    inputs = rng.integers(2, VOCABULARY, (3, 11))
    inputs[1, 7:] = 0
    targets = rng.integers(2, VOCABULARY, (3, 9))
    return model, inputs, targets


def names(model):
    return {k: v.detach().numpy() for k, v in model.state_dict().items()}


@functools.cache
def ours(name):
    model, _, _ = oracle(name)
    theirs = model.config.to_dict() | {"architectures": [type(model).__name__]}
    config = switch_config(theirs, base.get_config())
    return config, import_switch(config, names(model))


def batch_of(name):
    _, inputs, targets = oracle(name)

    def side(tokens, prefix):
        places = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
        arrays = {"tokens": tokens, "segment_ids": tokens >= 0, "positions": places}
        return {prefix + k: jnp.asarray(v, jnp.int32) for k, v in arrays.items()}

    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    batch = side(shifted, "") | side(inputs, "encoder_")
    real = jnp.asarray(inputs > 0, jnp.int32)
    return batch | {"encoder_segment_ids": real}


@functools.cache
def forward(name):
    config, params = ours(name)
    model = build_model(config, VOCABULARY)
    batch = batch_of(name)
    given = {k: v for k, v in batch.items() if k.startswith("encoder_")}

    @jax.jit
    def run(params):
        return model.apply(
            {"params": params},
            batch["tokens"],
            batch["segment_ids"],
            batch["positions"],
            train=False,
            **given,
        )

    return run, run(params)


@contextlib.contextmanager
def in_float64(name):
    """Their model in float64: what is compared is our rounding, not the sum of both.

    In float32 theirs is up to 1.7e-5 from this itself.
    """
    model = oracle(name)[0].double()
    try:
        yield model
    finally:
        model.zero_grad()
        model.float()


def theirs_forward(name):
    model, inputs, targets = oracle(name)
    return model(
        input_ids=torch.tensor(inputs),
        attention_mask=torch.tensor((inputs > 0).astype(np.int64)),
        labels=torch.tensor(targets),
        output_router_logits=False,
    )


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_theirs_dropped_tokens_included(name):
    _, (logits, reports) = forward(name)
    with in_float64(name), torch.no_grad():
        expected = theirs_forward(name).logits.numpy()
    for stack in ("encoder", "decoder"):
        dropped = float(np.mean(reports[stack]["router/dropped"]))
        assert (0.02 < dropped < 0.7) == (SHAPES[name]["expert_capacity"] < 64)
        # No choice is so close that rounding could turn it.
        assert np.min(reports[stack]["router/top1_margin"]) > 1e-3
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_gradients_of_every_tensor_are_theirs():
    name = "every second, drops"
    _, _, targets = oracle(name)
    run, _ = forward(name)
    config, params = ours(name)

    def loss(params):
        found = jax.nn.log_softmax(run(params)[0])
        return -jnp.take_along_axis(found, jnp.asarray(targets)[..., None], 2).mean()

    gradients = jax.jit(jax.grad(loss))(params)
    with in_float64(name) as model:
        logits = theirs_forward(name).logits
        torch.nn.functional.cross_entropy(
            logits.reshape(-1, VOCABULARY), torch.tensor(targets).reshape(-1)
        ).backward()
        theirs = {
            key: np.zeros(value.shape) if value.grad is None else value.grad.numpy()
            for key, value in model.named_parameters()
        }
    _, exported = export_switch(config, gradients)
    root = config.model.d_model**0.5
    compared = 0
    for key, expected in theirs.items():
        found = exported[key]
        if key == "shared.weight":  # theirs is ours times the root
            found = found / root**2
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=key)
        compared += 1
    assert compared == len(exported)


def test_greedy_answers_are_theirs():
    name = "every second, room for all"
    model, inputs, _ = oracle(name)
    config, params = ours(name)
    expected = model.generate(
        torch.tensor(inputs),
        attention_mask=torch.tensor((inputs > 0).astype(np.int64)),
        max_new_tokens=6,
        do_sample=False,
        num_beams=1,
    )
    found = continue_rows(
        config,
        build_model(config, VOCABULARY),
        {"params": params},
        jnp.asarray(inputs, jnp.int32),
        jnp.asarray((inputs > 0).sum(1), jnp.int32),
        max_tokens=6,
        end_id=1,
        vocab_size=VOCABULARY,
        key=jax.random.key(0),
    )
    for row, other in zip(np.asarray(found), expected.numpy()[:, 1:], strict=True):
        length = len(other) if 1 not in other else list(other).index(1) + 1
        np.testing.assert_array_equal(row[:length], other[:length])


def test_a_folder_comes_and_goes_without_a_change(tmp_path):
    name = "other depths"
    model, inputs, targets = oracle(name)
    model.save_pretrained(tmp_path / "theirs")
    theirs, tensors = read_folder(tmp_path / "theirs")
    config = switch_config(theirs, base.get_config())
    params = import_switch(config, tensors)
    write_folder(tmp_path / "back", *export_switch(config, params))
    again = type(model).from_pretrained(tmp_path / "back").eval()
    for key, value in names(model).items():
        np.testing.assert_allclose(names(again)[key], value, rtol=1e-6, err_msg=key)
    with torch.no_grad():
        tokens = {
            "input_ids": torch.tensor(inputs),
            "labels": torch.tensor(targets),
        }
        np.testing.assert_allclose(
            again(**tokens).logits, model(**tokens).logits, atol=1e-5
        )
    with pytest.raises(UserError, match=r"holds a config\.json already"):
        write_folder(tmp_path / "back", *export_switch(config, params))


@pytest.mark.parametrize("causal", [True, False])
def test_relative_buckets_are_theirs(causal):
    module = transformers.models.switch_transformers.modeling_switch_transformers
    bucket = module.SwitchTransformersAttention._relative_position_bucket
    distances = np.arange(-300, 301)
    expected = bucket(torch.tensor(distances), not causal, 32, 128).numpy()
    found = relative_bucket(jnp.asarray(distances), causal=causal)
    np.testing.assert_array_equal(found, expected)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="the model is a MixtralForCausalLM"):
        switch_config({"architectures": ["MixtralForCausalLM"]}, base.get_config())
    config, _ = ours("untied")
    tensors = names(oracle("untied")[0])
    apart = tensors | {"encoder.embed_tokens.weight": np.zeros((VOCABULARY, 16))}
    with pytest.raises(UserError, match=r"encoder\.embed_tokens\.weight differs"):
        import_switch(config, apart)
    tensors = {k: v for k, v in tensors.items() if "embed_tokens" not in k}
    lacking = {k: v for k, v in tensors.items() if k != "shared.weight"}
    with pytest.raises(UserError, match=r"lacks shared\.weight"):
        import_switch(config, lacking)
    other = tensors | {"shared.weight": np.zeros((7, 16))}
    with pytest.raises(UserError, match=r"shared\.weight has shape \(7, 16\)"):
        import_switch(config, other)
    config = config.copy_and_resolve_references()
    config.model.activation = "gelu"
    with pytest.raises(UserError, match=r"model\.activation='gelu'"):
        export_switch(config, {})
