"""Examples in JSON lines: `{"input": "..", "target": ".."}`, one a line.

`target` may also be a list of the answers that are accepted, the first of which
is trained on. Other keys are left alone.
"""

import hashlib
from collections.abc import Iterable

from etils import epath
from ml_collections import ConfigDict

from moe_jax.data import holdout
from moe_jax.data.cache import digest
from moe_jax.data.json_lines import parse_line
from moe_jax.data.sources.base import SPLITS, Split
from moe_jax.data.tasks.base import Example, ExampleLists
from moe_jax.errors import UserError


def open_jsonl(data: ConfigDict) -> ExampleLists:
    """The examples that `data.path` names.

    A folder has `train.jsonl` and `validation.jsonl`. Of a single file,
    `data.validation_fraction` is held out by a hash of the input, so that equal
    inputs are on one side.

    Raises:
      UserError: there is no such path, or a split is missing or empty; a line is
        malformed: its file, its number and what is wrong with it.
    """
    if not data.path:
        raise UserError(
            "data.task='jsonl' needs data.path: a .jsonl file, or a folder with "
            "train.jsonl and validation.jsonl"
        )
    path = epath.Path(data.path).expanduser()
    if not path.exists():
        raise UserError(f"data.path={data.path} does not exist; give a file or folder")
    if path.is_dir():
        return _folder(path)
    holdout.check_fraction(data.validation_fraction, "data.validation_fraction")
    return _single(path, data.validation_fraction)


def _folder(folder: epath.Path) -> ExampleLists:
    lists: dict[Split, list[Example]] = {}
    contents = []
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        if not path.exists():
            raise UserError(
                f"data.path={folder} has no {path.name}; a folder needs train.jsonl "
                "and validation.jsonl, to split a single file give its own path"
            )
        lists[split], content = _read(path)
        contents.append(content)
    return ExampleLists(digest(["jsonl folder", contents]), lists)


def _single(path: epath.Path, fraction: float) -> ExampleLists:
    examples, content = _read(path)
    positions = [holdout.position(example.input.encode()) for example in examples]
    bound = holdout.threshold(positions, fraction)
    lists: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for example, position in zip(examples, positions, strict=True):
        lists["validation" if position < bound else "train"].append(example)
    if not all(lists.values()):
        raise UserError(
            f"data.path={path}: all {len(examples)} examples have the same input, so "
            "none can be held out; add others"
        )
    return ExampleLists(digest(["jsonl", content, bound]), lists)


def _read(path: epath.Path) -> tuple[list[Example], str]:
    """The examples of a file, and SHA-256 of its content."""
    content = path.read_bytes()
    examples = list(_parse(content.splitlines(), str(path)))
    if not examples:
        raise UserError(f"{path} has no examples; give a line for each")
    return examples, hashlib.sha256(content).hexdigest()


def _parse(lines: Iterable[bytes], name: str) -> Iterable[Example]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _example(line)
        except ValueError as error:
            raise UserError(f"{name} line {number} {error}") from error


def _example(line: bytes) -> Example:
    """The example of a line.

    Raises:
      ValueError: the line is malformed; the message says what it is instead.
    """
    record = parse_line(line)
    if not isinstance(record, dict):
        raise ValueError(f"is no object but {type(record).__name__}")
    for key in ("input", "target"):
        if key not in record:
            known = ", ".join(record) or "nothing"
            raise ValueError(f"has no {key!r}; it has: {known}")
    target = record["target"]
    targets = target if isinstance(target, list) else [target]
    if not targets:
        raise ValueError("has an empty list as 'target'; give one answer or more")
    for key, text in [("input", record["input"]), *(("target", t) for t in targets)]:
        if not isinstance(text, str):
            raise ValueError(f"has {text!r} under {key!r}, which should be a string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"holds half of a surrogate pair in {key!r}") from error
    return Example(record["input"], tuple(targets))
