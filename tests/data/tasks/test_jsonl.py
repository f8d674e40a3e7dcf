"""Questions in JSON lines: what is read, and what is refused with its line."""

import json

import pytest

from configs import base
from moe_jax.data.tasks import open_examples
from moe_jax.errors import UserError

pytestmark = pytest.mark.fast


def examples(path, **changes):
    data = base.get_config().data
    data.task, data.path = "jsonl", str(path)
    data.update(changes)
    return open_examples(data)


def write(path, *lines):
    path.write_text(
        "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    )
    return path


def test_a_file_holds_out_some_inputs_and_always_the_same(tmp_path):
    path = write(
        tmp_path / "all.jsonl",
        *({"input": f"{i % 50}", "target": "x"} for i in range(200)),
    )
    once, again = examples(path), examples(path)
    train, held_out = (list(once.examples(s)) for s in ("train", "validation"))
    assert len(train) + len(held_out) == 200
    assert not {e.input for e in train} & {e.input for e in held_out}
    assert list(again.examples("validation")) == held_out
    assert once.key == again.key


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    lines = [json.dumps({"input": f"{i}", "target": "x"}) for i in range(99)]
    path = tmp_path / "marked.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    found = examples(path)
    assert sum(len(list(found.examples(s))) for s in ("train", "validation")) == 99


def test_a_folder_has_its_own_splits(tmp_path):
    write(
        tmp_path / "train.jsonl",
        {"input": "a", "target": "b"},
        "",
        {"input": "c", "target": ["d", "e"]},
    )
    write(tmp_path / "validation.jsonl", {"input": "f", "target": "g", "more": 1})
    found = examples(tmp_path)
    assert [e.targets for e in found.examples("train")] == [("b",), ("d", "e")]
    assert [e.input for e in found.examples("validation")] == ["f"]
    assert len(list(examples(tmp_path, train_examples=1).examples("train"))) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "{not json",
            r"line 2 is not JSON: Expecting property name enclosed in double quotes "
            r"at column 2$",
        ),
        ("[" * 100_000, "line 2 is not JSON: "),
        ("[1, 2]", "line 2 is no object but list"),
        ({"input": "a"}, "line 2 has no 'target'; it has: input"),
        ({"input": 3, "target": "b"}, "line 2 has 3 under 'input'"),
        ({"input": "a", "target": []}, "line 2 has an empty list as 'target'"),
    ],
)
def test_a_malformed_line_is_told_with_its_file_number_and_reason(
    tmp_path, line, reason
):
    path = write(tmp_path / "bad.jsonl", {"input": "a", "target": "b"}, line)
    with pytest.raises(UserError, match=reason) as refusal:
        examples(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p / "nothing", "does not exist"),
        (
            lambda p: write(p / "train.jsonl", {"input": "a", "target": "b"}).parent,
            "no validation.jsonl",
        ),
        (lambda p: write(p / "empty.jsonl", ""), "has no examples"),
        (
            lambda p: write(p / "one.jsonl", {"input": "a", "target": "b"}),
            "none can be held out",
        ),
    ],
)
def test_a_split_that_is_not_there_is_told(tmp_path, make, reason):
    with pytest.raises(UserError, match=reason):
        examples(make(tmp_path))


def test_more_training_examples_than_there_are_is_told(tmp_path):
    path = write(
        tmp_path / "few.jsonl", *({"input": f"{i}", "target": "x"} for i in range(9))
    )
    with pytest.raises(UserError, match=r"train_examples=99, but there are"):
        list(examples(path, train_examples=99).examples("train"))
