"""The whole schema: every field of every experiment, with its unit and default.

An experiment file starts from ``base.get_config()`` and changes fields; the
command line overrides them with ``--config.group.field=value``. The result is
locked and typed, so that a misspelt field or a wrong type is an error.

Axes: B batch, L length, D model width, F hidden width, G groups, S tokens per
group, E experts, K experts per token, C capacity (slots per expert per group).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the locked schema with its defaults."""
    config = ConfigDict()
    config.seed = 0  # initial parameters, data order, dropout, router noise
    config.init_from = ""  # workdir of another run, to start a new one from
    # Its optimizer's slots, too (moments, statistics); step and schedule start anew.
    config.init_optimizer = False
    config.init_whole_state = False  # all of its state: slots, step and schedule

    config.model = _model()
    config.moe = _moe()
    config.loss = _loss()
    config.distill = _distill()
    config.optimizer = _optimizer()
    config.data = _data()
    config.train = _train()
    config.mesh = _mesh()

    config.lock()
    # The schema's two free nodes.
    config.moe.router_options.unlock()
    config.moe.encoder.unlock()
    return config


def _model() -> ConfigDict:
    model = ConfigDict()
    model.architecture = "decoder"  # decoder, encoder_decoder
    # Of the decoder: the leading layers, and a multiple of the block pattern.
    model.num_layers = 4
    # Of an encoder: its layers and block pattern; 0 and (): as the decoder's.
    model.encoder_layers = 0
    model.encoder_pattern = ()
    model.d_model = 128  # D
    model.d_ff = 512  # F of the dense FFNs
    model.num_heads = 4  # query heads
    model.num_kv_heads = 4  # key and value heads; divides num_heads
    model.head_dim = 0  # width of one head; 0: d_model / num_heads
    # One kind per layer, repeated with depth: "dense", "moe", "dense:N" for a dense
    # FFN of hidden width N, or several with a "+" between: "moe+dense" has a dense
    # FFN after its sparse one, with a norm and a residual of its own. "moe_attention+"
    # before all of them, as in "moe_attention+dense", makes the layer's attention to
    # its own sequence sparse: one sparse layer for queries, one for keys and values.
    model.block_pattern = ("dense", "moe")
    # Dense layers before the repeated pattern: "dense" or "dense:N".
    model.leading_layers = ()
    model.activation = "gelu"  # relu, gelu, swiglu, geglu; FFNs and experts
    model.norm = "rmsnorm"  # rmsnorm, layernorm
    model.norm_epsilon = 1e-6
    model.norm_scale = True  # norms multiply by a learned scale
    model.positions = "rotary"  # rotary, relative (T5's learned bias), none
    model.rope_base = 10_000.0  # rotary: longest wavelength / 2 pi
    model.relative_buckets = 32  # relative: distances told apart
    model.relative_max_distance = 128  # relative: where the last bucket begins
    # Divide attention's logits by sqrt(head_dim); False: its queries' initial
    # kernels instead (T5).
    model.scale_attention = True
    model.attention = "auto"  # auto, xla, cudnn
    model.dropout = 0.0  # rate on the output of attention and FFN
    model.init_scale = 1.0  # variance of a kernel times its fan-in
    model.tied_embeddings = True  # the output head is the embedding table
    # Rows of the embedding; 0: as many as the tokenizer has ids. With a number, a
    # config can be described and compiled without its tokenizer.
    model.vocab_size = 0
    model.vocab_multiple = 64  # vocabulary is padded up to a multiple of this
    model.dtype = "float32"  # compute: float32, bfloat16; params are float32
    # Repeats of the pattern per iteration of the scan over layers; more compile
    # longer and run faster, above all on CPU, where a loop body runs serially.
    model.scan_unroll = 1
    # What the backward pass computes again: none; full (all but the input of each
    # repeat); exchange (full, but for what came from other devices); dots
    # (exchange, but for matrix products).
    model.remat = "none"
    return model


def _moe() -> ConfigDict:
    moe = ConfigDict()
    moe.num_experts = 8  # E
    moe.num_selected_experts = 1  # K
    moe.num_shared_experts = 0  # visited by every token, beside the K
    moe.d_ff = 512  # F of one expert
    # Experts of sparse attention: linear (maps without hidden activations, which thus
    # have neither expert_bias nor expert_dropout, and start like dense projections, by
    # model.init_scale), ffn (as in sparse FFNs).
    moe.attention_experts = "linear"
    moe.router = "switch"  # a name of moe_jax.routing.ROUTERS
    moe.router_options = ConfigDict()  # keyword arguments of that router
    moe.router_net = "linear"  # linear, mlp, cosine
    moe.router_hidden = 64  # hidden width of mlp and cosine
    moe.router_init_stddev = 0.02  # normal
    moe.router_frozen = False  # keep the initial, random router
    moe.router_input_dropout = 0.0  # rate on the router's inputs, in training
    moe.jitter = 0.0  # multiplicative noise U[1-j, 1+j] in training
    moe.jitter_target = "inputs"  # inputs, logits (of the router)
    # What the router sees of a token: token, prefix (mean of its document so far),
    # sentence (mean of its document: sees the future), task (a task's embedding).
    moe.routing_unit = "token"
    moe.num_tasks = 1  # embeddings of routing_unit "task"
    moe.dispatcher = "gather"  # gather, einsum; dropless ignores capacity
    moe.grouped_matmul = "auto"  # of dropless: auto, ragged_dot, tokamax, blocks
    moe.group_size = 0  # S: tokens that compete for slots; 0: one sequence
    moe.train_capacity_factor = 1.25
    moe.eval_capacity_factor = 2.0
    # C = round(factor * S * (K if capacity_times_k) / E), up to the next multiple,
    # at least min_capacity and at most S.
    moe.capacity_times_k = True
    moe.capacity_rounding = "ceil"  # ceil, floor, nearest (half to even)
    moe.capacity_multiple = 1  # slots
    moe.min_capacity = 4  # slots
    # Who comes first: choice_major, token_major, batch_priority, probability,
    # random.
    moe.allocation = "choice_major"
    moe.overflow = "drop"  # drop, reroute (to the next best expert with room)
    moe.reroute_tries = 4  # next best experts that a choice without slot tries
    moe.renormalize_kept = False  # divide gates by their sum after dropping
    moe.mask_padding = True  # padding takes no slot and no part in the losses
    moe.expert_dropout = 0.0  # rate on the experts' hidden activations
    moe.init_scale = 0.1  # variance of an expert kernel times its fan-in
    # What each expert does to its hidden activations: none; additive or
    # multiplicative (ST-MoE), a learned vector of width F.
    moe.expert_bias = "none"
    # Of the router's matrix product and softmax; bfloat16 is what Switch warns of.
    moe.router_dtype = "float32"
    # Of routers with a bias that no gradient reaches (loss_free), once a step.
    moe.bias_update_rate = 1e-3
    moe.bias_update = "sign"  # sign, proportional
    moe.allow_future = False  # routers in a decoder that see later tokens
    # What differs in the encoder's sparse layers, e.g. {"allocation":
    # "batch_priority"}: any of the fields above, router_options whole.
    moe.encoder = ConfigDict()
    return moe


def _loss() -> ConfigDict:
    loss = ConfigDict()
    loss.load_balance = 0.01  # weight
    loss.load_balance_counts = "top1"  # top1, topk: choices that count as load
    loss.load_balance_at_balance = "one"  # one, k: the loss of perfect balance
    loss.load_balance_scope = "group"  # group, sequence; global: the (micro)batch
    loss.importance = 0.0  # weight of CV^2 of the experts' summed gates
    loss.importance_on = "gates"  # gates, probs
    loss.load = 0.0  # weight of CV^2 of the smooth load (noisy_topk)
    loss.router_z = 0.0  # weight
    loss.router_max_z = 0.0  # weight of the squared largest router logit
    loss.router_entropy = 0.0  # weight of a token's entropy; positive: decide
    loss.usage_variance = 0.0  # weight of the variance of the mean probabilities
    loss.usage_entropy = 0.0  # weight of ln E minus the entropy of those
    loss.thresholds = 0.0  # weight of the threshold loss (batchwise)
    loss.lm_z = 0.0  # weight of the squared log-partition of the LM head
    loss.attention_z = 0.0  # weight of the same of attention's softmax, all layers
    loss.layer_reduction = "mean"  # mean, sum of router losses over MoE layers
    return loss


def _distill() -> ConfigDict:
    distill = ConfigDict()
    distill.teacher = ""  # workdir of the run whose model teaches; "": none
    distill.step = 0  # of its checkpoint; 0: the newest
    # Share of the loss that is the cross entropy to the teacher's probabilities; the
    # rest is that to the true tokens.
    distill.soft_weight = 0.25
    distill.temperature = 1.0  # divides both models' logits in the soft part
    return distill


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # adamw, adafactor
    optimizer.learning_rate = 3e-3  # peak
    # Factors on it, of the experts' own parameters and of the routers'.
    optimizer.expert_learning_rate_scale = 1.0
    optimizer.router_learning_rate_scale = 1.0
    optimizer.schedule = "cosine"  # cosine, rsqrt, constant; after the warm-up
    optimizer.warmup = "linear"  # linear (from 0), constant (at the peak, as in T5)
    optimizer.warmup_steps = 50  # T5: 10_000
    optimizer.decay_steps = 500  # horizon of the schedule, warm-up included
    optimizer.final_fraction = 0.1  # cosine ends at this part of the peak
    optimizer.clip_norm = 1.0  # global gradient norm; 0: no clipping
    optimizer.weight_decay = 0.0  # decoupled; kernels and embeddings only
    # What moves: all, non_expert, expert, attention, ffn, router; see
    # moe_jax.training.trainable. The rest stays as it is and has no slots.
    optimizer.trainable = "all"
    # And of those the ones in whose path this regular expression is found, e.g.
    # "layer_1/ffn/experts"; "": all.
    optimizer.trainable_pattern = ""

    optimizer.adamw = ConfigDict()
    optimizer.adamw.b1 = 0.9
    optimizer.adamw.b2 = 0.98
    optimizer.adamw.epsilon = 1e-8
    optimizer.adamw.mu_dtype = "float32"  # of the first moment; or bfloat16

    optimizer.adafactor = ConfigDict()
    optimizer.adafactor.decay_rate = 0.8  # beta2(t) = 1 - t^-decay_rate
    optimizer.adafactor.min_dim_size_to_factor = 128
    optimizer.adafactor.clipping_threshold = 1.0  # RMS of an update; 0: off
    optimizer.adafactor.multiply_by_parameter_scale = True
    optimizer.adafactor.momentum = 0.0  # 0: none
    optimizer.adafactor.momentum_dtype = "float32"  # or bfloat16
    optimizer.adafactor.epsilon = 1e-30
    return optimizer


def _data() -> ConfigDict:
    data = ConfigDict()
    data.source = "stdlib"  # stdlib, text, tfds, arrayrecord, task, synthetic
    data.path = ""  # text: file or folder; arrayrecord: what prepare wrote
    data.glob = "**/*"  # text: which files of a folder
    data.name = ""  # tfds: dataset name, e.g. "lm1b" or "wiki40b/en:1.3.0"
    data.train_split = "train"  # tfds
    data.validation_split = "validation"  # tfds
    data.text_key = "text"  # tfds: the feature that holds the text
    data.validation_fraction = 0.05  # text: share of the documents held out
    # Several weighted sources, e.g. ({"label": "code", "weight": 0.7},
    # {"label": "prose", "weight": 0.3, "source": "text", "path": "a.txt"}).
    # Each entry overrides the fields above; each label gets its own eval.
    data.mixture = ()
    data.tokenizer = "bytes"  # bytes, sentencepiece, huggingface
    data.tokenizer_path = ""  # SentencePiece model or tokenizer.json
    data.sequence_length = 256  # L, tokens
    data.isolate_documents = True  # no attention and no loss across documents
    # What is asked of a row: causal, prefix_lm, span_corruption, ul2.
    data.objective = "causal"
    # Tokens of the decoder's side where inputs and targets are apart; 0: as many as
    # span corruption of sequence_length leaves.
    data.target_length = 0
    data.noise_density = 0.15  # span_corruption: share of the tokens replaced
    data.mean_span_length = 3.0  # span_corruption, tokens
    data.num_sentinels = 0  # ids after the tokenizer's, the last one first; T5: 100
    # ul2: the mixture of denoisers; (): the seven of UL2. See
    # moe_jax.data.objectives.
    data.denoisers = ()
    data.task = ""  # source "task": a name of moe_jax.data.tasks
    data.train_examples = 0  # source "task": use so many; 0: all
    # source "task": sentinels behind each input and before each target, as in span
    # corruption (ST-MoE, Table 7).
    data.task_sentinels = 0
    data.synthetic = _synthetic()
    data.cache_dir = ""  # prepared data; "": ~/.cache/moe_jax
    return data


def _synthetic() -> ConfigDict:
    # Of source "synthetic"; see moe_jax.data.synthetic.
    synthetic = ConfigDict()
    synthetic.seed = 0  # of the tables and of every row; not of the order of rows
    synthetic.num_domains = 16  # each with its own Markov table and facts
    synthetic.domain_exponent = 1.0  # Zipf exponent of the domains; 0: all alike
    # Mean tokens of a document, BOS and EOS left out; 0: a row is one document.
    synthetic.document_length = 128.0
    synthetic.num_words = 64  # vocabulary of text, keys and values
    synthetic.markov_order = 2  # words that decide how the next one is distributed
    synthetic.branching = 4  # words that may follow a context
    synthetic.branching_exponent = 1.0  # Zipf exponent of their probabilities
    # Share of the words after a context that are those after the context which is
    # one word shorter; 0: contexts have nothing in common.
    synthetic.backoff = 0.7
    synthetic.facts_per_domain = 4096  # key -> value, one word
    synthetic.key_length = 2  # words
    synthetic.fact_exponent = 0.0  # Zipf exponent of a domain's facts; 0: all alike
    # Share of a document's tokens that belong to facts (marker, key and value).
    synthetic.fact_share = 0.3
    return synthetic


def _train() -> ConfigDict:
    train = ConfigDict()
    train.num_steps = 500  # when to stop; the schedule does not depend on it
    train.batch_size = 16  # B, sequences per step, all devices together
    train.accumulation_steps = 1  # microbatches per step; divides batch_size
    train.eval_batch_size = 16  # sequences
    train.eval_batches = 8  # of each held-out set, always the same ones
    train.eval_interval = 100  # steps; 0: only at the end
    train.log_interval = 10  # steps
    train.checkpoint_interval = 100  # steps; 0: only at the end
    train.keep_last = 2  # checkpoints
    # Checkpoints of lowest held-out loss, of those saved at a step that was also
    # evaluated.
    train.keep_best = 1
    return train


def _mesh() -> ConfigDict:
    mesh = ConfigDict()
    mesh.data = -1  # devices along the axis; -1 takes the rest
    mesh.expert = 1
    mesh.model = 1
    # What is sharded over data, too: none; optimizer (its state: ZeRO-1); all
    # (parameters and optimizer state: ZeRO-3).
    mesh.fsdp = "none"
    # How dropless rows reach their experts: auto, all_to_all, all_gather.
    mesh.exchange = "auto"
    # Rows that a device keeps free for each other one, over what balance would
    # send; more are dropped, and counted. Of all_to_all alone.
    mesh.exchange_factor = 2.0
    # In which activations cross devices: "" (as computed), bfloat16, float32.
    mesh.exchange_dtype = ""
    return mesh
