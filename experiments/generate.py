"""Continues a text with a trained model.

  python -m experiments.generate --workdir=runs/quickstart --prompt="def main("

No token is dropped: every expert has a slot for every token.
"""

from collections.abc import Sequence

from absl import flags

from experiments import command

_WORKDIR = command.define_workdir("Folder of the run to sample from.")
_PROMPT = flags.DEFINE_string("prompt", "", "Text to continue.")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 200, "Tokens to add at most.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "0: always the likeliest token.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Continuations to draw.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the draws.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; none: the newest.")
_CONFIG = command.define_run_config()


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_run_config(_CONFIG, _WORKDIR)
    from moe_jax.training.generation import generate

    texts = generate(
        config,
        _WORKDIR.value,
        prompt=_PROMPT.value,
        max_tokens=_MAX_TOKENS.value,
        temperature=_TEMPERATURE.value,
        num_samples=_NUM_SAMPLES.value,
        seed=_SEED.value,
        step=_STEP.value,
    )
    for i, text in enumerate(texts):
        if len(texts) > 1:
            print(f"--- sample {i + 1} of {len(texts)}")
        print(_PROMPT.value + text)


if __name__ == "__main__":
    command.run(main)
