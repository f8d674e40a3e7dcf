"""Every objective for every architecture, from a corpus or a task to batches."""

import json

import numpy as np
import pytest

from moe_jax.data import open_data
from moe_jax.data.shapes import batch_spec
from moe_jax.errors import UserError

pytestmark = pytest.mark.fast

ARCHITECTURES = ("decoder", "encoder_decoder")
OBJECTIVES = ("prefix_lm", "span_corruption", "ul2")


def asked(config, architecture, objective):
    config.model.architecture = architecture
    config.data.objective = objective
    config.data.sequence_length, config.data.num_sentinels = 32, 40
    return config


def batches(data, start=0, count=2, **part):
    stream = data.train_batches(start, **part)
    return [next(stream) for _ in range(count)]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_are_as_said_and_depend_on_seed_and_step_alone(
    config, architecture, objective, isolate
):
    config = asked(config, architecture, objective)
    config.data.isolate_documents = isolate
    data = open_data(config)
    first, second = batches(data)
    spec = batch_spec(config)
    assert first.keys() == spec.keys()
    for name, (length, dtype) in spec.items():
        assert first[name].shape == (8, length), name
        assert first[name].dtype == dtype, name
        assert first[name].max() < data.vocab_size
    assert_same(batches(data, start=1, count=1)[0], second)
    halves = [batches(data, process_index=i, process_count=2)[1] for i in (0, 1)]
    for name in second:
        whole = np.concatenate([half[name] for half in halves])
        np.testing.assert_array_equal(whole, second[name], err_msg=name)
    assert first["weights"].sum() > 0
    assert not np.array_equal(first["tokens"], second["tokens"])


def test_held_out_rows_are_hidden_alike_for_every_seed(config):
    config = asked(config, "encoder_decoder", "span_corruption")
    one = open_data(config)
    config.seed = 5
    other = open_data(config)
    (label,) = one.eval_sets
    pairs = zip(
        one.eval_sets[label].batches(), other.eval_sets[label].batches(), strict=True
    )
    for a, b in pairs:
        assert_same(a, b)
    assert not np.array_equal(batches(one)[0]["targets"], batches(other)[0]["targets"])


def test_text_and_sentinels_come_back(config):
    data = open_data(asked(config, "encoder_decoder", "span_corruption"))
    text = "one <extra_id_0> two<extra_id_1>"
    ids = data.encode(text)
    assert ids[4] == data.vocab_size - 1
    assert ids[-1] == data.vocab_size - 2
    assert data.decode(ids) == text
    with pytest.raises(UserError, match="<extra_id_40>: there are 40 sentinels"):
        data.encode("<extra_id_40>")


def test_the_fingerprint_follows_the_objective(config):
    found = {open_data(config).fingerprint}
    for objective in OBJECTIVES:
        found.add(open_data(asked(config, "decoder", objective)).fingerprint)
    config.data.noise_density = 0.3
    found.add(open_data(asked(config, "decoder", "span_corruption")).fingerprint)
    found.add(open_data(asked(config, "encoder_decoder", "prefix_lm")).fingerprint)
    assert len(found) == 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_of_questions_becomes_rows_and_is_kept_to_be_asked(
    config, architecture, tmp_path
):
    lines = [{"input": f"q {i}", "target": [f"a {i}", "other"]} for i in range(60)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = asked(config, architecture, "causal")
    config.data.source, config.data.task = "task", "jsonl"
    config.data.path, config.data.target_length = str(path), 12
    data = open_data(config)
    (batch,) = batches(data, count=1)
    assert batch.keys() == batch_spec(config).keys()
    side = "encoder_tokens" if architecture == "encoder_decoder" else "tokens"
    assert "q " in data.decode(batch[side][0].tolist())
    # Several examples share a row.
    assert batch["segment_ids"].max() > 1
    held_out = data.tasks["validation"].eval_examples()
    assert all(e.targets[1] == "other" for e in held_out)
    counts = data.description["sources"]["validation"]
    assert counts["train"]["examples"] + counts["validation"]["examples"] == 60


def test_sentinels_of_a_task_stand_between_input_and_target(config, tmp_path):
    lines = [{"input": f"q {i}", "target": f"a {i}"} for i in range(60)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = asked(config, "encoder_decoder", "causal")
    config.data.source, config.data.task = "task", "jsonl"
    config.data.path, config.data.target_length = str(path), 16
    config.data.task_sentinels = 2
    data = open_data(config)
    (batch,) = batches(data, count=1)
    (row,) = [batch["encoder_tokens"][0][batch["encoder_segment_ids"][0] == 1]]
    assert data.decode(row[:-1].tolist()).endswith("<extra_id_0><extra_id_1>")
    target = batch["targets"][0][batch["segment_ids"][0] == 1]
    assert data.decode(target.tolist()).startswith("<extra_id_0><extra_id_1>a ")
    config.data.num_sentinels = 1
    with pytest.raises(UserError, match=r"task_sentinels=2: there are 1 sentinels"):
        open_data(config)


def test_a_mode_in_front_of_a_text_is_its_token_and_elsewhere_text(config):
    data = open_data(asked(config, "encoder_decoder", "ul2"))
    for name, mode in data.ids.modes.items():
        ids = data.encode(f"[{name}] a[S]<extra_id_0>")
        assert ids[0] == mode
        assert data.tokenizer.decode(ids[1:-1]) == " a[S]"
        assert data.decode(ids) == f"[{name}] a[S]<extra_id_0>"
    assert set(data.ids.modes) == {"R", "X", "S"}
    plain = open_data(asked(config, "encoder_decoder", "span_corruption"))
    assert plain.encode("[S]") == plain.tokenizer.encode("[S]")


def test_synthetic_rows_bring_their_own_vocabulary_and_domains(config):
    config.data.source, config.data.path = "synthetic", ""
    data = open_data(config)
    first, second = batches(data)
    assert first.keys() == batch_spec(config).keys()
    assert first["task_ids"].max() > 0
    assert not np.array_equal(first["tokens"], second["tokens"])
    assert data.vocab_size == config.data.synthetic.num_words + 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "span"}, r"data\.objective='span' is unknown"),
        ({"noise_density": 1.5}, r"noise_density=1\.5 is not between 0 and 1"),
        ({"mean_span_length": 0.5}, r"mean_span_length=0\.5 is not"),
        (
            {"num_sentinels": 1, "mean_span_length": 1.0},
            r"num_sentinels=1: a row can have \d+ spans",
        ),
        ({"target_length": 40}, r"target_length=40 leaves no room"),
        ({"denoisers": ({"mode": 3},), "objective": "ul2"}, r"mode=3 should be a str"),
        ({"source": "task"}, r"data\.source='task' needs data\.task"),
        ({"source": "task", "task": "glue"}, r"data\.task='glue'"),
    ],
)
def test_fields_that_cannot_work_are_refused_in_one_line(config, changes, message):
    config = asked(config, "decoder", "span_corruption")
    for name, value in changes.items():
        config.data[name] = value
    with pytest.raises(UserError, match=message) as refusal:
        open_data(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("objective", "rows", "kinds"),
    [
        ("span_corruption", 270, "259 ids and 40 sentinels, 299 in all"),
        ("ul2", 301, "259 ids, 3 modes and 40 sentinels, 302 in all"),
    ],
)
def test_more_ids_than_rows_are_told_by_their_kinds(config, objective, rows, kinds):
    config = asked(config, "decoder", objective)
    config.model.vocab_size = rows
    with pytest.raises(
        UserError, match=rf"vocab_size={rows}: the tokenizer has {kinds}"
    ):
        open_data(config)
    config.model.vocab_size = int(kinds.split()[-3])
    assert open_data(config).vocab_size == config.model.vocab_size


def test_next_tokens_leave_nothing_for_an_encoder(config):
    config.model.architecture = "encoder_decoder"
    with pytest.raises(UserError, match="'causal' has no inputs for an encoder"):
        open_data(config)
