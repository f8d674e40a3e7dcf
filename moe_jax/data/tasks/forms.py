"""Records of the benchmarks as text, in T5's forms.

Raffel et al. 2020, appendix D, as the code of record writes them: its text
preprocessors for TFDS's datasets. Beginning and ending space is dropped, which T5's
tokenizer does by itself. A form returns None for a record without a label, as in
test splits.
"""

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from moe_jax.data.tasks.base import Example

Record = dict[str, Any]  # of str, int, float, and lists and dicts of those
Form = Callable[[Record], Example | None]

_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_SPACE = re.compile(r"[ \t\n\f\r]+")


def classification(name: str, features: Sequence[str], labels: Sequence[str]) -> Form:
    """`name feature: text feature: text ..`, answered by the label's name.

    Args:
      name: of the benchmark.
      features: the features in their order; T5 sorts them by name, with few
        exceptions.
      labels: name of each class.
    """

    def form(record: Record) -> Example | None:
        if record["label"] < 0:
            return None
        texts = " ".join(f"{feature}: {record[feature]}" for feature in features)
        return Example(f"{name} {texts}".strip(), (labels[record["label"]],))

    return form


def stsb(record: Record) -> Example | None:
    """STS-B: the similarity, rounded to a multiple of 0.2, as a word."""
    if record["label"] < 0:
        return None
    rounded = np.round(np.float32(record["label"]) * np.float32(5)) / np.float32(5)
    text = f"stsb sentence1: {record['sentence1']} sentence2: {record['sentence2']}"
    return Example(text.strip(), (f"{rounded:.1f}",))


def multirc(record: Record) -> Example | None:
    """MultiRC: is this answer to the question right? Without the markup.

    A group is a question.
    """
    form = classification(
        "multirc", ("question", "answer", "paragraph"), ("False", "True")
    )
    example = form(record)
    if example is None:
        return None
    text = re.sub(r"</?b>", "", example.input.replace("<br>", " "))
    place = record["idx"]
    group = f"{place['paragraph']}/{place['question']}"
    return example._replace(input=text.strip(), group=group)


def record_cloze(record: Record) -> Example | None:
    """ReCoRD: which entity is it that the query leaves out?"""
    if not record["answers"]:
        return None
    passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", record["passage"])
    passage = passage.replace("\n@highlight\n", ". ")
    entities = ", ".join(record["entities"])
    text = f"record query: {record['query']} entities: {entities} passage: {passage}"
    return Example(text.strip(), _distinct(record["answers"]))


def wsc(record: Record) -> Example | None:
    """WSC, and what T5 makes of it: what does the marked pronoun stand for?

    The target is the referent that the record proposes; `is_answer` says whether
    the pronoun stands for it.
    """
    if record["label"] < 0:
        return None
    words = record["text"].split(" ")
    pronoun = record["span2_text"]
    place = _place_of(pronoun, words, record["span2_index"])
    rest = words[place].removeprefix(pronoun)
    words[place] = f"*{pronoun}* {rest}".strip()
    text = "wsc: " + " ".join(words)
    return Example(
        text.strip(), (record["span1_text"].strip(),), is_answer=record["label"] == 1
    )


def _place_of(word: str, words: Sequence[str], index: int) -> int:
    """The place of `word`, which should be at `index`.

    In one sentence of the dataset a comma follows without a space, in another the
    index is wrong by one.
    """
    index = min(max(index, 0), len(words) - 1)
    if words[index].startswith(word):
        return index
    places = [place for place, other in enumerate(words) if other == word]
    return min(places, key=lambda place: abs(place - index), default=index)


def squad(record: Record) -> Example | None:
    """SQuAD: a question and its paragraph, with spaces around punctuation."""
    answers = record["answers"]["text"]
    if not answers:
        return None
    question, context = _spaced(record["question"]), _spaced(record["context"])
    text = f"question: {question} context: {context}"
    return Example(text, _distinct(_spaced(answer) for answer in answers))


def trivia_qa(record: Record) -> Example | None:
    """TriviaQA without a context (Roberts et al. 2020), in SeqIO's form."""
    answer = record["answer"]
    # Test splits have questions alone, and a name in place of the answer.
    if not answer["aliases"]:
        return None
    text = f"trivia_qa question: {record['question']}"
    return Example(text.strip(), _distinct([answer["value"], *answer["aliases"]]))


def _distinct(texts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts))


def _spaced(text: str) -> str:
    """`text` with spaces around ASCII punctuation, and no others doubled."""
    return _SPACE.sub(" ", _PUNCTUATION.sub(r" \1 ", text)).strip()
