"""The scale of the initial parameters.

The paper looks after 3.5k of its steps: an early look here, too, so that the runs are
short and their rate is high.
"""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Table 3"
PUBLISHED = {
    "columns": ("init scale", "neg. log perplexity", "standard deviation"),
    "rows": (("0.1", -2.72, 0.01), ("1.0", -3.60, 0.68)),
}
BASELINE = "scale_1"
SEEDS = {"cpu": 8}
SLICE, DEVICES = "32 TPU v3 cores", 32


def get_base(scale):
    """Adafactor with T5's settings; a quarter of the steps."""
    config = scales.decoder_of_32(scale)
    if scale == "paper":
        config.train.num_steps = 3_500
    else:
        config.optimizer.name = "adafactor"
        config.optimizer.learning_rate = 0.01
        config.optimizer.schedule = "rsqrt"
        config.optimizer.warmup = "constant"
        config.optimizer.clip_norm = 0.0
        config.train.num_steps //= 4
    return config


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    return {
        f"scale_{value:g}": {"model.init_scale": value, "moe.init_scale": value}
        for value in (1.0, 0.1)
    }


CLAIMS = {
    "better_early": {
        "statement": "An init scale of 0.1 is better than 1.0 early in training.",
        "published": "-2.72 against -3.60",
        "test": "difference",
        "contrast": {"scale_0.1": 1, "scale_1": -1},
        "direction": "lower",
        "minimum": 0.02,
        "settings": scales.ALL,
    },
    "less_variance": {
        "statement": "With 0.1 the loss varies less over seeds than with 1.0.",
        "published": "a standard deviation of 0.01 against 0.68",
        "test": "variance",
        "contrast": {"scale_0.1": 1, "scale_1": -1},
        "direction": "lower",
        "minimum": 2.0,
        "settings": scales.ALL,
    },
}
