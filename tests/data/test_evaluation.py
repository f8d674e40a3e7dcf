"""Held-out sets: fixed, and honest about their bytes."""

import gzip

import numpy as np
import pytest

from moe_jax.data import open_data


def eval_set(config, label="validation"):
    return open_data(config).eval_sets[label]


def test_eval_rows_do_not_depend_on_the_seed(config):
    first = eval_set(config).batches()
    config.seed = 5
    config.train.batch_size = 2
    for batch, other in zip(first, eval_set(config).batches(), strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name])


def test_eval_batches_have_the_asked_shape(config):
    batches = eval_set(config).batches()
    assert len(batches) == 3
    assert {array.shape for batch in batches for array in batch.values()} == {(4, 16)}


def test_small_split_is_taken_whole_and_padded_with_segment_zero(config):
    config.train.eval_batches = 1000
    data = open_data(config)
    rows = data.description["sources"]["validation"]["validation"]["rows"]
    batches = data.eval_sets["validation"].batches()
    assert len(batches) == -(-rows // 4)
    real = np.concatenate([b["segment_ids"].any(axis=1) for b in batches])
    assert real.sum() == rows
    assert all(not b["weights"][b["segment_ids"] == 0].any() for b in batches)


def test_more_batches_contain_the_fewer(config):
    few = eval_set(config).batches()
    config.train.eval_batches = 5
    more = eval_set(config).batches()
    for batch, other in zip(few, more[:3], strict=True):
        np.testing.assert_array_equal(batch["tokens"], other["tokens"])


def test_sample_spans_the_documents(config):
    """Not the first rows, which are those of the first files."""
    config.train.eval_batches = 2
    batches = eval_set(config).batches()
    config.train.eval_batches = 1000
    everything = np.concatenate([b["tokens"] for b in eval_set(config).batches()])
    stored = open_data(config)._rows[0].source("validation")
    head = [np.frombuffer(stored[i], np.int32)[:16].tolist() for i in range(8)]
    chosen = np.concatenate([b["tokens"] for b in batches]).tolist()
    assert len(everything) > 16
    assert sum(row in head for row in chosen) < 6


@pytest.mark.parametrize("isolate", [True, False])
def test_bytes_are_those_of_the_predicted_targets(config, isolate):
    config.data.isolate_documents = isolate
    held_out = eval_set(config)
    counted = bytearray()
    for batch in held_out.batches():
        for row in range(4):
            for target, weight in zip(
                batch["targets"][row], batch["weights"][row], strict=True
            ):
                if weight > 0 and target >= 3:
                    counted.append(target - 3)
    assert held_out.num_bytes == len(counted)
    expected = 8 * len(gzip.compress(bytes(counted), 9, mtime=0)) / len(counted)
    assert held_out.gzip_bits_per_byte == expected


def test_whole_split_predicts_every_byte_of_its_text(config):
    """BOS predicts a document's first byte, and rows overlap by one token."""
    config.train.eval_batches = 1000
    data = open_data(config)
    counts = data.description["sources"]["validation"]["validation"]
    assert data.eval_sets["validation"].num_bytes == counts["bytes"]


def test_no_held_out_document_is_trained_on(config, corpus):
    data = open_data(config)
    sides = {}
    for split in ("train", "validation"):
        rows = data._rows[0].source(split)
        pairs = [
            np.frombuffer(rows[i], np.int32).reshape(2, -1) for i in range(len(rows))
        ]
        stream = np.concatenate([pair[0, :-1] for pair in pairs]).tolist()
        sides[split] = data.tokenizer.decode(stream)
    for path in corpus.iterdir():
        text = path.read_text()[:40]
        assert (text in sides["train"]) != (text in sides["validation"]), path.name
