"""Tasks in text-to-text form: what `data.source="task"` trains on and scores."""

from moe_jax.data.tasks.base import Example, Examples, Task
from moe_jax.data.tasks.table import TASKS, open_examples, score_answers

__all__ = [
    "TASKS",
    "Example",
    "Examples",
    "Task",
    "open_examples",
    "score_answers",
]
