"""The table of tasks, by the name that `data.task` gives them."""

import itertools
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from moe_jax.data.cache import digest
from moe_jax.data.sources.base import Split
from moe_jax.data.tasks import forms, generated, metrics
from moe_jax.data.tasks.base import Example, Examples, Metric, Task
from moe_jax.data.tasks.jsonl import open_jsonl
from moe_jax.errors import UserError, check_choice

_ENTAILMENT = ("entailment", "not_entailment")
_BOOLEAN = ("False", "True")


def _dataset(
    name: str,
    form: forms.Form,
    *scored: Metric,
    validation_split: str = "validation",
    train_every_target: bool = False,
) -> Task:
    def open_examples(data: ConfigDict) -> Examples:
        # tensorflow_datasets takes a while to import, and most runs need none of it.
        from moe_jax.data.tasks.tfds_examples import open_tfds_examples

        return open_tfds_examples(
            data,
            name=name,
            form=form,
            validation_split=validation_split,
            train_every_target=train_every_target,
        )

    return Task(open_examples, scored)


def _labels(
    name: str,
    features: Sequence[str],
    labels: Sequence[str],
    *scored: Metric,
    validation_split: str = "validation",
) -> Task:
    """A benchmark with one label a record; `name` is TFDS's, e.g. "glue/cola"."""
    form = forms.classification(name.split("/")[1], features, labels)
    scored = scored or (metrics.accuracy,)
    return _dataset(name, form, *scored, validation_split=validation_split)


def _pairs_f1(negative: str, positive: str) -> tuple[Metric, ...]:
    return metrics.binary_f1(positive, negative), metrics.accuracy


_PAIR = ("sentence1", "sentence2")
_MNLI = (
    "glue/mnli",
    ("hypothesis", "premise"),
    ("entailment", "neutral", "contradiction"),
)
_CB = ("entailment", "contradiction", "neutral")
_MRPC = ("not_equivalent", "equivalent")
_QQP = ("not_duplicate", "duplicate")
_ANSWERS = (metrics.accuracy, metrics.squad)

# WNLI is asked as it is, where T5 trained on WSC instead.
TASKS: dict[str, Task] = {
    "jsonl": Task(open_jsonl, _ANSWERS),
    "facts": Task(generated.facts, _ANSWERS),
    "composition": Task(generated.composition, _ANSWERS),
    "copy": Task(generated.copy, _ANSWERS),
    "glue_cola": _labels(
        "glue/cola", ("sentence",), ("unacceptable", "acceptable"), metrics.matthews
    ),
    "glue_sst2": _labels("glue/sst2", ("sentence",), ("negative", "positive")),
    "glue_mrpc": _labels("glue/mrpc", _PAIR, _MRPC, *_pairs_f1(*_MRPC)),
    "glue_stsb": _dataset("glue/stsb", forms.stsb, metrics.correlations),
    "glue_qqp": _labels(
        "glue/qqp", ("question1", "question2"), _QQP, *_pairs_f1(*_QQP)
    ),
    "glue_mnli": _labels(*_MNLI, validation_split="validation_matched"),
    "glue_mnli_mismatched": _labels(*_MNLI, validation_split="validation_mismatched"),
    "glue_qnli": _labels("glue/qnli", ("question", "sentence"), _ENTAILMENT),
    "glue_rte": _labels("glue/rte", _PAIR, _ENTAILMENT),
    "glue_wnli": _labels("glue/wnli", _PAIR, ("not_entailment", "entailment")),
    "super_glue_boolq": _labels("super_glue/boolq", ("passage", "question"), _BOOLEAN),
    "super_glue_cb": _labels(
        "super_glue/cb",
        ("hypothesis", "premise"),
        _CB,
        metrics.macro_f1(_CB),
        metrics.accuracy,
    ),
    "super_glue_copa": _labels(
        "super_glue/copa",
        ("choice1", "choice2", "premise", "question"),
        ("choice1", "choice2"),
    ),
    "super_glue_multirc": _dataset(
        "super_glue/multirc",
        forms.multirc,
        metrics.binary_f1("True", "False"),
        metrics.all_of_group,
    ),
    "super_glue_record": _dataset(
        "super_glue/record", forms.record_cloze, metrics.squad, train_every_target=True
    ),
    "super_glue_rte": _labels("super_glue/rte", ("hypothesis", "premise"), _ENTAILMENT),
    "super_glue_wic": _labels(
        "super_glue/wic", ("sentence1", "sentence2", "word"), _BOOLEAN
    ),
    "super_glue_wsc": _dataset(
        "super_glue/wsc.fixed", forms.wsc, metrics.referent_accuracy
    ),
    "squad": _dataset("squad/v1.1", forms.squad, metrics.squad),
    "trivia_qa": _dataset(
        "trivia_qa/unfiltered.nocontext", forms.trivia_qa, metrics.trivia_qa
    ),
}


class _First(Examples):
    """The first training examples of others, and all held-out ones."""

    def __init__(self, examples: Examples, count: int):
        self.key = digest([examples.key, count])
        self._examples = examples
        self._count = count

    def examples(self, split: Split) -> Iterator[Example]:
        examples = self._examples.examples(split)
        if split != "train":
            yield from examples
            return
        there = 0
        for example in itertools.islice(examples, self._count):
            yield example
            there += 1
        if there < self._count:
            raise UserError(f"data.train_examples={self._count}, but there are {there}")


def open_examples(data: ConfigDict) -> Examples:
    """The examples of the task that `data.task` names.

    Args:
      data: the data fields; `train_examples` of them are for training, 0: all.

    Raises:
      UserError: no task has that name; or what the task itself raises.
    """
    if not data.task:
        raise UserError(
            f"data.source='task' needs data.task: one of {', '.join(TASKS)}"
        )
    check_choice("data.task", data.task, TASKS)
    if data.train_examples < 0:
        raise UserError(f"data.train_examples={data.train_examples} is negative")
    try:
        examples = TASKS[data.task].open(data)
    except UserError as error:
        if "data.task" in str(error):
            raise
        raise UserError(f"data.task={data.task!r}: {error}") from error
    return _First(examples, data.train_examples) if data.train_examples else examples


def score_answers(
    task: str, examples: Sequence[Example], answers: Sequence[str]
) -> dict[str, float]:
    """The metrics of a task; see `metrics.score`.

    Args:
      task: a name of `TASKS`.
      examples: what was asked.
      answers: one for each example.
    """
    return metrics.score(TASKS[task].metrics, examples, answers)
