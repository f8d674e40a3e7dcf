"""How far experts divide the text between them by token id.

Source: Zoph et al. 2022, arXiv:2202.08906, section 7 and Table 14, whose measure is
the entropy of the experts that sentinels are sent to.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, Num

from moe_jax.data import EvalSet
from moe_jax.data.extra_ids import extra_ids
from moe_jax.models.replay import RECORD, with_recording
from moe_jax.training.losses import apply_model
from moe_jax.training.step import EVAL_SEED
from moe_jax.training.trained import Trained

_STACKS = {"decoder": "", "encoder": "encoder_"}


def specialization(trained: Trained, eval_set: EvalSet) -> dict[str, Any]:
    """Measures a router of token choice on a held-out set; {} where there is none.

    Only first choices count, before capacity, at the real tokens that a stack reads.

    Returns:
      For each stack, `encoder/` or `decoder/` (of a decoder alone without a prefix):

      - `specialization/information`: mutual information of token id and expert over
        ln E, mean over the sparse layers: 0 says that an id does not tell the expert,
        1 that it tells it and all experts are used alike. The estimate is corrected
        for the number of tokens (Miller 1955), so that it may be just below 0.
      - `specialization/information_by_layer`: the same of each layer.
      - `specialization/sentinel_entropy`: of the experts of sentinels, in nats, mean
        over the layers; ln E is no preference. Where there are sentinels.

      With both stacks also `specialization/decoder_less_encoder`, the difference of
      the two entropies over ln E.
    """
    counts = count_experts(trained, eval_set)
    if not counts:
        return {}
    data = trained.experiment.config.data
    sentinels = extra_ids(data, trained.data.tokenizer).sentinels
    apart = trained.experiment.config.model.architecture == "encoder_decoder"
    found: dict[str, Any] = {}
    shares = {}
    for stack, own in counts.items():
        prefix = f"{stack}/specialization/" if apart else "specialization/"
        most = np.log(max(own.shape[-1], 2))  # of one expert all measures are 0
        by_layer = [mutual_information(layer) / most for layer in own]
        found[f"{prefix}information"] = float(np.mean(by_layer))
        found[f"{prefix}information_by_layer"] = by_layer
        chosen = own[:, sentinels].sum(axis=1)
        if chosen.any():
            mean = float(np.mean([entropy(layer) for layer in chosen]))
            found[f"{prefix}sentinel_entropy"] = mean
            shares[stack] = mean / most
    if len(shares) == 2:
        difference = float(shares["decoder"] - shares["encoder"])
        found["specialization/decoder_less_encoder"] = difference
    return found


def count_experts(
    trained: Trained, eval_set: EvalSet
) -> dict[str, Int[np.ndarray, "layer id expert"]]:
    """Tokens of each id that were sent to each expert, by stack and sparse layer.

    {} where no stack has sparse layers of token choice.
    """
    experiment, ids = trained.experiment, trained.data.vocab_size
    model = with_recording(experiment.config, ids, experiment.mesh)

    @jax.jit
    def choices(variables: Any, batch: Mapping[str, Array]) -> dict[str, Any]:
        rngs = {"router": jax.random.key(EVAL_SEED)}
        _, reports = apply_model(model, variables, batch, False, rngs)
        if reports.keys() != {"encoder", "decoder"}:
            reports = {"decoder": reports}
        return {
            stack: {RECORD: own[RECORD][..., 0], "router/load": own["router/load"]}
            for stack, own in reports.items()
            if RECORD in own
        }

    counts: dict[str, np.ndarray] = {}
    for batch in eval_set.batches():
        made = jax.device_get(choices(trained.variables, experiment.put_eval(batch)))
        for stack, own in made.items():
            prefix = _STACKS[stack]
            tokens, real = batch[f"{prefix}tokens"], batch[f"{prefix}segment_ids"] > 0
            layers, experts = own["router/load"].shape
            total = counts.setdefault(stack, np.zeros([layers, ids, experts], int))
            for layer, chosen in enumerate(own[RECORD]):
                kept = real & (chosen >= 0)
                np.add.at(total[layer], (tokens[kept], chosen[kept]), 1)
    return counts


def mutual_information(counts: Num[np.ndarray, "id expert"]) -> float:
    """Nats between the two sides of a table of counts.

    Entropies of counts are too low by (n - 1) / (2 N) on average, n values that occur
    in N counts; each of the three that it consists of is corrected (Miller 1955).
    """
    total = counts.sum()
    if total == 0:
        return 0.0

    def corrected(of: Num[np.ndarray, "value"]) -> float:
        return entropy(of) + (np.count_nonzero(of) - 1) / (2 * total)

    rows, columns = corrected(counts.sum(1)), corrected(counts.sum(0))
    return float(rows + columns - corrected(counts.ravel()))


def entropy(counts: Num[np.ndarray, "value"]) -> float:
    """Nats of the distribution that counts are proportional to; 0 of none."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())
