"""How answers in text are scored: exact match, accuracy, F1, correlations.

Each metric takes examples and as many answers, and returns shares in [0, 1], or
correlations in [-1, 1], under the names that they are reported by.
"""

import collections
import re
import string
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import stats

from moe_jax.data.tasks.base import Example, Metric

_PUNCTUATION = frozenset(string.punctuation)
# TriviaQA's evaluation script knows a few more.
_TRIVIA_PUNCTUATION = _PUNCTUATION | frozenset("\u2018\u2019\u00b4`_")
# What WSC's referents may begin with or not: "the fish" is "fish".
_DETERMINERS = frozenset(
    [
        "a",
        "an",
        "few",
        "her",
        "his",
        "each",
        "every",
        "many",
        "much",
        "my",
        "our",
        "some",
        "that",
        "the",
        "their",
        "these",
        "this",
        "those",
        "which",
        "whose",
        "your",
    ]
)
_NO_NUMBER = -1.0  # what STS-B's answers that are no number count as, as in T5


def score(
    metrics: Iterable[Metric], examples: Sequence[Example], answers: Sequence[str]
) -> dict[str, float]:
    """All metrics of some answers.

    Args:
      metrics: of the task.
      examples: what was asked; whole groups, where the task has groups.
      answers: one for each example.

    Raises:
      ValueError: there are no examples, or not as many answers.
    """
    if not examples or len(examples) != len(answers):
        raise ValueError(f"{len(answers)} answers to {len(examples)} examples")
    results: dict[str, float] = {}
    for metric in metrics:
        results |= metric(examples, answers)
    return results


def accuracy(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """`accuracy`: the answer is an accepted one, but for space around it."""
    return {"accuracy": _mean(map(_is_right, examples, answers))}


def squad(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `f1` of SQuAD 1.1 (Rajpurkar et al. 2016).

    Answers are compared without case, punctuation and articles; F1 is that of
    their words. Both are the best over the accepted answers.
    """
    return _best_over_targets(examples, answers, normalize_squad)


def trivia_qa(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `f1` of TriviaQA (Joshi et al. 2017).

    As SQuAD's, but a punctuation mark becomes a space.
    """
    return _best_over_targets(examples, answers, normalize_trivia_qa)


def binary_f1(positive: str, negative: str) -> Metric:
    """`f1` of the positive label; any other word counts as the wrong label.

    So do GLUE (MRPC, QQP) and SuperGLUE (MultiRC) in T5's form. Without any
    positive label, given or answered, it is 0.
    """

    def metric(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        other = {positive: negative, negative: positive}
        labels = [_target(example) for example in examples]
        given = [
            answer.strip() if answer.strip() in other else other[label]
            for label, answer in zip(labels, answers, strict=True)
        ]
        return {"f1": _label_f1(labels, given, positive)}

    return metric


def macro_f1(labels: Sequence[str]) -> Metric:
    """`macro_f1`: the mean of each label's F1 (SuperGLUE's CommitmentBank)."""

    def metric(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
        wanted = [_target(example) for example in examples]
        given = [answer.strip() for answer in answers]
        return {"macro_f1": _mean(_label_f1(wanted, given, label) for label in labels)}

    return metric


def matthews(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, float]:
    """`matthews`: the Matthews correlation of labels and answers (GLUE's CoLA).

    Gorodkin's form for any number of classes, since an answer that is no label
    is a class of its own. 0 where either has one class only.
    """
    labels = [_target(example) for example in examples]
    given = [answer.strip() for answer in answers]
    classes = sorted({*labels, *given})
    wanted = np.array([labels.count(name) for name in classes], float)
    answered = np.array([given.count(name) for name in classes], float)
    right = sum(map(str.__eq__, labels, given))
    total = len(labels)
    spread = (total**2 - wanted @ wanted) * (total**2 - answered @ answered)
    value = (right * total - wanted @ answered) / np.sqrt(spread) if spread else 0.0
    return {"matthews": float(value)}


def correlations(
    examples: Sequence[Example], answers: Sequence[str]
) -> dict[str, float]:
    """`pearson` and `spearman` of the numbers (GLUE's STS-B).

    An answer that is no number counts as -1. Both are 0 where the answers, or
    the labels, are all the same: such answers say nothing.
    """
    wanted = np.array([_number(_target(example)) for example in examples])
    given = np.array([_number(answer) for answer in answers])
    if np.ptp(wanted) == 0 or np.ptp(given) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(wanted, given)[0]),
        "spearman": float(stats.spearmanr(wanted, given)[0]),
    }


def all_of_group(
    examples: Sequence[Example], answers: Sequence[str]
) -> dict[str, float]:
    """`exact_match`: groups whose answers are all right (SuperGLUE's MultiRC)."""
    groups: dict[str, bool] = {}
    for example, answer in zip(examples, answers, strict=True):
        right = _is_right(example, answer)
        groups[example.group] = groups.get(example.group, True) and right
    return {"exact_match": _mean(groups.values())}


def referent_accuracy(
    examples: Sequence[Example], answers: Sequence[str]
) -> dict[str, float]:
    """`accuracy` of WSC, where an answer names what a pronoun stands for.

    The answer says "this referent" if its words, without determiners, are among
    the referent's or the other way round, and both or neither have an
    apostrophe: "fuzzy bunny" is "the bunny", "Bob" is not "Bob's hat". It is
    right if that is so exactly where the referent is the right one.
    """
    right = (
        _names(answer, _target(example)) == example.is_answer
        for example, answer in zip(examples, answers, strict=True)
    )
    return {"accuracy": _mean(right)}


def normalize_squad(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return _normalize(text, _PUNCTUATION, "")


def normalize_trivia_qa(text: str) -> str:
    """Lower case, spaces for punctuation, no articles, single spaces."""
    return _normalize(text, _TRIVIA_PUNCTUATION, " ")


def word_f1(target: str, answer: str) -> float:
    """F1 of the words of two normalized texts, counted with repetition."""
    wanted, given = target.split(), answer.split()
    common = (collections.Counter(wanted) & collections.Counter(given)).total()
    return 2 * common / (len(wanted) + len(given)) if common else 0.0


def _best_over_targets(
    examples: Sequence[Example],
    answers: Sequence[str],
    normalize: Callable[[str], str],
) -> dict[str, float]:
    exact, f1 = [], []
    for example, answer in zip(examples, answers, strict=True):
        given = normalize(answer)
        targets = [normalize(target) for target in example.targets]
        exact.append(given in targets)
        f1.append(max(word_f1(target, given) for target in targets))
    return {"exact_match": _mean(exact), "f1": _mean(f1)}


def _normalize(text: str, punctuation: frozenset[str], replacement: str) -> str:
    text = "".join(
        replacement if character in punctuation else character
        for character in text.lower()
    )
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _names(answer: str, referent: str) -> bool:
    if ("'" in answer) != ("'" in referent):
        return False
    given, wanted = _bare_words(answer), _bare_words(referent)
    return given <= wanted or wanted <= given


def _bare_words(text: str) -> set[str]:
    # Split at single spaces, so that an empty answer is one empty word, which no
    # referent holds.
    words = text.strip().lower().split(" ")
    return {*" ".join(w for w in words if w not in _DETERMINERS).split(" ")}


def _label_f1(labels: Sequence[str], given: Sequence[str], label: str) -> float:
    pairs = list(zip(labels, given, strict=True))
    hits = pairs.count((label, label))
    named = sum((wanted == label) + (answer == label) for wanted, answer in pairs)
    return 2 * hits / named if named else 0.0


def _is_right(example: Example, answer: str) -> bool:
    return answer.strip() in [target.strip() for target in example.targets]


def _target(example: Example) -> str:
    return example.targets[0].strip()


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return _NO_NUMBER
    return value if np.isfinite(value) else _NO_NUMBER


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
