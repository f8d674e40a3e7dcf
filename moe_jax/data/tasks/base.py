"""What a task is made of: examples in text, and how answers are scored."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from moe_jax.data.sources.base import Split


class Example(NamedTuple):
    """A text and what should be answered.

    Attributes:
      input: the text.
      targets: the answers that are accepted; the first one is trained on.
      group: examples of one group are also scored together; "" for most tasks.
      is_answer: false if the targets are what must not be answered, as for half
        of WSC's sentences: scored, but never trained on.
    """

    input: str
    targets: tuple[str, ...]
    group: str = ""
    is_answer: bool = True


class Examples(abc.ABC):
    """The examples of a task, in an order that never changes.

    Attributes:
      key: changes whenever the examples may have changed; cheap to know.
    """

    key: str

    @abc.abstractmethod
    def examples(self, split: Split) -> Iterator[Example]:
        """Streams the examples of a split."""


class ExampleLists(Examples):
    """Examples that are in memory."""

    def __init__(self, key: str, lists: Mapping[Split, Sequence[Example]]):
        self.key = key
        self._lists = lists

    def examples(self, split: Split) -> Iterator[Example]:
        return iter(self._lists[split])


# Scores answers to as many examples; the values are shares in [0, 1], or
# correlations in [-1, 1].
Metric = Callable[[Sequence[Example], Sequence[str]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One entry of the table of tasks.

    Attributes:
      open: the examples, given the data fields of a config.
      metrics: how answers are scored.
    """

    open: Callable[[ConfigDict], Examples]
    metrics: tuple[Metric, ...]
