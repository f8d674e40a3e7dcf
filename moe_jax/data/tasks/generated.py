"""Tasks made on the fly: recall of facts, composition of tables, copying.

Each has one stated difficulty, whatever the size of its training set: with
`data.train_examples=250` it is a small task, whole (about 20,000) a large one.
All follow from `data.synthetic.seed` alone; the training set of N examples is
the beginning of a longer one's.
"""

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data import holdout
from moe_jax.data.cache import digest
from moe_jax.data.tasks.base import Example, ExampleLists
from moe_jax.errors import UserError

GENERATED_VERSION = 1  # of all that is generated; a new number makes rows anew

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]

_OPENINGS = (
    "",
    "Please answer: ",
    "Question: ",
    "Tell me, ",
    "Quick: ",
    "From memory: ",
    "Once again: ",
    "Next: ",
)

_NUM_FACTS = 256
_NUM_VALUES = 64
_FACT_QUESTIONS = (
    "what is the color of {}?",
    "which color has {}?",
    "{} has what color?",
    "the color of {} is?",
    "name the color of {}.",
    "of what color is {}?",
    "give the color that {} has.",
    "{}: its color?",
    "say which color {} is.",
    "color of {}?",
)
_HELD_OUT_FACT_QUESTIONS = (
    "if one sees {}, one sees which color?",
    "someone painted {}. In what color?",
)

_NUM_ITEMS = 12
_NUM_TABLES = 6
_TABLE_STYLES = (
    "{table} of {item}",
    "{table}({item})",
    "the {table} of {item}",
    "{item}, then {table}",
    "{item} under {table}",
    "apply {table} to {item}",
)
_HELD_OUT_COMPOSITIONS = 86  # of 432: a fifth
_COMPOSITION_WORDINGS = 6  # in which each held-out composition is asked

_COPY_WORDS = 64
_COPY_LENGTHS = (4, 12)  # words, both included
_COPY_TRAIN = 20_000
_COPY_VALIDATION = 512
_COPY_HELD_OUT = 0.05


def facts(data: ConfigDict) -> ExampleLists:
    """Recall from a table of 256 keys, each with one of 64 values.

    A question names a key; the answer is its value. Each fact is asked in up to
    80 wordings for training (all facts in one wording, then in the next), and
    held-out questions ask those of the facts that training asks, in two other
    wordings. What has to be held are 256 * log2(64) = 1,536 bits; chance is 1/64.

    Raises:
      UserError: more examples are wanted than there are; a seed out of range.
    """
    rng = _random_state(data)
    keys = _words(rng, _NUM_FACTS, 3)
    values = _words(rng, _NUM_VALUES, 2)
    # Each value as often as the others, so that chance is what it is said to be.
    table = rng.permutation(np.arange(_NUM_FACTS) % _NUM_VALUES)
    wordings = [o + question for o in _OPENINGS for question in _FACT_QUESTIONS]
    size = _train_size(data, _NUM_FACTS * len(wordings))

    def ask(wording: str, fact: int) -> Example:
        return Example(wording.format(keys[fact]), (values[table[fact]],))

    train = [
        ask(wordings[number % len(wordings)], fact)
        for fact, number in _in_rounds(size, _NUM_FACTS)
    ]
    held_out = [
        ask(wording, fact)
        for wording in _HELD_OUT_FACT_QUESTIONS
        for fact in range(min(size, _NUM_FACTS))
    ]
    return _lists("facts", data, train, held_out)


def composition(data: ConfigDict) -> ExampleLists:
    """Steps through tables: f(x), and f(g(x)), of 6 permutations of 12 items.

    Training asks all 72 single steps and 346 of the 432 compositions (in one
    wording, then in the next, up to 48); held-out questions ask the other 86
    compositions, whose parts training knows. Chance is 1/12. The tables hold
    72 * log2(12) = 258 bits at most: the task is the step, not the memory.

    Raises:
      UserError: more examples are wanted than there are; a seed out of range.
    """
    rng = _random_state(data)
    names = _words(rng, _NUM_TABLES + _NUM_ITEMS, 2)
    tables, items = names[:_NUM_TABLES], names[_NUM_TABLES:]
    step = np.stack([rng.permutation(_NUM_ITEMS) for _ in tables])
    paths = [
        (item, inner, outer)
        for item in range(_NUM_ITEMS)
        for inner in range(_NUM_TABLES)
        for outer in range(_NUM_TABLES)
    ]
    shuffled = [paths[index] for index in rng.permutation(len(paths))]
    held_out = shuffled[:_HELD_OUT_COMPOSITIONS]
    singles = [(x, table) for x in range(_NUM_ITEMS) for table in range(_NUM_TABLES)]
    known = [*singles, *shuffled[_HELD_OUT_COMPOSITIONS:]]
    known = [known[index] for index in rng.permutation(len(known))]
    num_wordings = len(_OPENINGS) * len(_TABLE_STYLES)
    size = _train_size(data, len(known) * num_wordings)

    def ask(number: int, path: tuple[int, ...]) -> Example:
        opening, style = divmod(number % num_wordings, len(_TABLE_STYLES))
        text, item = items[path[0]], path[0]
        for table in path[1:]:
            text = _TABLE_STYLES[style].format(table=tables[table], item=text)
            item = step[table, item]
        return Example(f"{_OPENINGS[opening]}{text}?", (items[item],))

    train = [
        ask(number, known[index]) for index, number in _in_rounds(size, len(known))
    ]
    validation = [
        ask(wording, path)
        for wording in range(_COMPOSITION_WORDINGS)
        for path in held_out
    ]
    return _lists("composition", data, train, validation)


def copy(data: ConfigDict) -> ExampleLists:
    """Say again 4 to 12 words, of 64 there are; no text comes twice.

    Nothing has to be known, and chance is nil. 512 texts are held out, chosen by
    a hash, so that no training set holds them.

    Raises:
      UserError: more examples are wanted than there are; a seed out of range.
    """
    rng = _random_state(data)
    words = _words(rng, _COPY_WORDS, 2)
    size = _train_size(data, _COPY_TRAIN)
    lists: dict[bool, list[str]] = {False: [], True: []}  # by "held out"
    room = {False: _COPY_TRAIN, True: _COPY_VALIDATION}
    seen = set()
    while any(len(lists[side]) < room[side] for side in lists):
        length = rng.randint(_COPY_LENGTHS[0], _COPY_LENGTHS[1] + 1)
        text = " ".join(words[index] for index in rng.randint(len(words), size=length))
        side = holdout.position(text.encode()) < _COPY_HELD_OUT
        if text not in seen and len(lists[side]) < room[side]:
            seen.add(text)
            lists[side].append(text)
    train, held_out = (
        [Example(f"copy: {text}", (text,)) for text in lists[side]]
        for side in (False, True)
    )
    return _lists("copy", data, train[:size], held_out)


def _in_rounds(size: int, num_questions: int) -> Iterator[tuple[int, int]]:
    """Each question once, then each again: its index, and the wording's number.

    Neighbours differ in wording, and a question's next round has the next one.
    """
    for index in range(size):
        asked, question = divmod(index, num_questions)
        yield question, question + asked


def _lists(
    name: str, data: ConfigDict, train: list[Example], validation: list[Example]
) -> ExampleLists:
    identity = [name, GENERATED_VERSION, data.synthetic.seed, len(train)]
    return ExampleLists(digest(identity), {"train": train, "validation": validation})


def _random_state(data: ConfigDict) -> np.random.RandomState:
    seed = data.synthetic.seed
    if not 0 <= seed < 2**32:
        raise UserError(f"data.synthetic.seed={seed} is not in [0, 2^32)")
    # RandomState's stream is frozen for good, which Generator's is not.
    return np.random.RandomState(seed)


def _train_size(data: ConfigDict, most: int) -> int:
    if data.train_examples > most:
        raise UserError(
            f"data.train_examples={data.train_examples}: data.task={data.task!r} has "
            f"{most}"
        )
    return data.train_examples or most


def _words(rng: np.random.RandomState, count: int, syllables: int) -> list[str]:
    """Distinct words of so many syllables."""
    base = len(_SYLLABLES)
    chosen = rng.choice(base**syllables, count, replace=False)
    return [
        "".join(_SYLLABLES[number // base**place % base] for place in range(syllables))
        for number in chosen
    ]
