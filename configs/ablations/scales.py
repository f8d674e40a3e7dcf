"""The base configs of the ablations, by scale.

* `smoke`: a few steps of a tiny model: does the plumbing work?
* `cpu`: two cores; a run takes about half a minute on one of them, an encoder-decoder's
  a minute.
* `gpu`: one GPU of 80 GB; a run takes a few minutes.
* `paper`: the published size and length: Switch-Base for tables of Switch, ST-MoE-L
  for those of ST-MoE.

Up to `gpu` the data are synthetic (`moe_jax.data.synthetic`): unlimited, never
repeated, of known entropy, and the same on every machine.
"""

from types import ModuleType

from ml_collections import ConfigDict

from configs import base, st_moe_l, switch_base

# Runs of each arm that decide a claim.
SEEDS = {"smoke": 3, "cpu": 5, "gpu": 5, "paper": 3}

# Which word a scale's setting is, next to the paper's own.
SMALL = {"smoke": "proxy data", "cpu": "proxy data", "gpu": "proxy data"}
ALL = {**SMALL, "paper": "paper"}
# Of claims on tasks with a training set of some size. At scale cpu a model was at chance
# on held-out questions (recall of facts, composition) after all of its steps, and more.
WITH_TASKS = {
    "settings": {scale: SMALL[scale] for scale in ("smoke", "gpu")},
    "untestable": {"cpu": "a model of this size learns no such task in so few steps"},
}
# Of claims that the small scales' text was made for: it holds more than a dense model
# of that size can, and its next word hangs on the word before it.
BUILT_IN = {**dict.fromkeys(SMALL, "by construction"), "paper": "paper"}
# Of claims that are computed, whatever the scale is.
EXACT = dict.fromkeys(ALL, "exact")


def decoder(scale: str, published: ModuleType = switch_base) -> ConfigDict:
    """A decoder with 8 experts in every other layer; top-1, capacity factor 1.25.

    Args:
      scale: `smoke`, `cpu`, `gpu` or `paper`.
      published: the config of scale `paper`, an encoder-decoder.
    """
    if scale == "paper":
        return _published(published)
    config = base.get_config()
    _small_model(config, scale)
    config.model.num_layers = {"smoke": 2, "cpu": 4, "gpu": 8}[scale]
    return config


def decoder_of_32(scale: str) -> ConfigDict:
    """`decoder`, but at scale `paper` Switch-Base with 32 experts."""
    config = decoder(scale)
    if scale == "paper":
        config.moe.num_experts = 32
    return config


def st_moe_decoder(scale: str) -> ConfigDict:
    """`decoder`, but at scale `paper` ST-MoE-L."""
    return decoder(scale, st_moe_l)


def st_moe_encoder_decoder(scale: str) -> ConfigDict:
    """`encoder_decoder`, but at scale `paper` ST-MoE-L."""
    return encoder_decoder(scale, st_moe_l)


def encoder_decoder(scale: str, published: ModuleType = switch_base) -> ConfigDict:
    """T5's form: 2 + 2 layers at scale cpu, span corruption; see `decoder`."""
    if scale == "paper":
        return _published(published)
    config = base.get_config()
    _small_model(config, scale)
    layers = {"smoke": 2, "cpu": 2, "gpu": 6}[scale]
    if scale == "cpu":  # to attend takes longer to learn than to continue
        config.optimizer.learning_rate = 2e-2
        config.optimizer.warmup_steps = 75
        config.optimizer.decay_steps = config.train.num_steps = 750
    config.model.architecture = "encoder_decoder"
    config.model.num_layers = layers
    config.model.encoder_layers = layers
    config.model.positions = "relative"
    config.model.scale_attention = False
    config.data.objective = "span_corruption"
    config.data.num_sentinels = 32
    config.data.target_length = {"smoke": 8, "cpu": 32, "gpu": 128}[scale]
    config.moe.group_size = {"smoke": 32, "cpu": 512, "gpu": 4096}[scale]
    return config


def _small_model(config: ConfigDict, scale: str) -> None:
    """Width, data and length of `smoke`, `cpu` and `gpu`."""
    width = {"smoke": 16, "cpu": 32, "gpu": 384}[scale]
    steps = {"smoke": 4, "cpu": 250, "gpu": 3000}[scale]
    length = {"smoke": 32, "cpu": 128, "gpu": 512}[scale]
    batch = {"smoke": 4, "cpu": 16, "gpu": 64}[scale]
    config.model.d_model = width
    config.model.d_ff = 2 * width
    config.model.num_heads = {"smoke": 1, "cpu": 2, "gpu": 12}[scale]
    config.model.num_kv_heads = config.model.num_heads
    config.model.activation = "relu"
    config.model.scan_unroll = 2 if scale == "cpu" else 1
    config.model.dtype = "bfloat16" if scale == "gpu" else "float32"
    config.moe.d_ff = config.model.d_ff
    config.moe.group_size = {"smoke": 64, "cpu": 1024, "gpu": 4096}[scale]
    config.moe.init_scale = 1.0

    config.data.source = "synthetic"
    config.data.sequence_length = length
    synthetic = config.data.synthetic
    synthetic.document_length = 0.0  # a row is one document
    synthetic.num_domains = {"smoke": 2, "cpu": 2, "gpu": 16}[scale]
    synthetic.facts_per_domain = {"smoke": 16, "cpu": 256, "gpu": 4096}[scale]
    synthetic.num_words = {"smoke": 64, "cpu": 512, "gpu": 64}[scale]
    synthetic.markov_order = {"smoke": 1, "cpu": 1, "gpu": 2}[scale]
    synthetic.backoff = {"smoke": 0.5, "cpu": 0.0, "gpu": 0.5}[scale]
    synthetic.fact_share = {"smoke": 0.5, "cpu": 0.0, "gpu": 0.5}[scale]

    config.optimizer.learning_rate = {"smoke": 3e-3, "cpu": 4e-2, "gpu": 2e-3}[scale]
    config.optimizer.warmup_steps = max(1, steps // 10)
    config.optimizer.decay_steps = steps
    config.train.num_steps = steps
    config.train.batch_size = batch
    config.train.eval_batch_size = batch
    config.train.eval_batches = {"smoke": 1, "cpu": 32, "gpu": 32}[scale]
    config.train.eval_interval = 0
    config.train.checkpoint_interval = 0
    config.train.log_interval = {"smoke": 1, "cpu": 10, "gpu": 50}[scale]
    config.train.keep_best = 0


def _published(module: ModuleType) -> ConfigDict:
    """C4, 100k steps of 2^20 tokens: Switch's Table 1, ST-MoE's Table 8."""
    config = module.get_config()
    config.train.num_steps = 100_000
    return config
