"""Batches of packed inputs and targets, by hand."""

import numpy as np
import pytest

from moe_jax.data.denoisers import Example
from moe_jax.data.pairs import (
    decode_pairs,
    encode_pairs,
    encoder_decoder_batch,
    pack_examples,
    prefix_batch,
)

pytestmark = pytest.mark.fast

EOS = 1


def example(inputs, targets):
    inputs, targets = np.array(inputs, np.int32), np.array(targets, np.int32)
    return Example(inputs, targets, np.zeros_like(inputs), np.zeros_like(targets))


ROW = pack_examples(
    [example([10, 11, EOS], [20, EOS]), example([12, EOS], [21, 22, EOS])], 7, 6
)


def test_examples_lie_one_after_the_other_with_their_numbers():
    assert ROW.inputs.tolist() == [[10, 11, EOS, 12, EOS, 0, 0]]
    assert ROW.input_segments.tolist() == [[1, 1, 1, 2, 2, 0, 0]]
    assert ROW.targets.tolist() == [[20, EOS, 21, 22, EOS, 0]]
    assert ROW.target_segments.tolist() == [[1, 1, 2, 2, 2, 0]]


def test_a_decoders_inputs_are_its_targets_shifted_within_each_example():
    batch = encoder_decoder_batch(ROW)
    assert batch["encoder_tokens"].tolist() == ROW.inputs.tolist()
    assert batch["encoder_positions"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["tokens"].tolist() == [[0, 20, 0, 21, 22, 0]]
    assert batch["targets"].tolist() == ROW.targets.tolist()
    assert batch["positions"].tolist() == [[0, 1, 0, 1, 2, 0]]
    assert batch["weights"].tolist() == [[1, 1, 1, 1, 1, 0]]


def test_a_decoder_alone_reads_the_inputs_and_learns_the_targets():
    batch = prefix_batch(ROW, 10)
    assert batch["tokens"].tolist() == [[10, 11, EOS, 20, 12, EOS, 21, 22, 0, 0]]
    assert batch["targets"].tolist() == [[11, EOS, 20, EOS, EOS, 21, 22, EOS, 0, 0]]
    assert batch["weights"].tolist() == [[0, 0, 1, 1, 0, 1, 1, 1, 0, 0]]
    assert batch["prefix"].tolist() == [[1, 1, 1, 0, 1, 1, 0, 0, 0, 0]]
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]]
    assert batch["positions"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]


def test_a_record_holds_the_row():
    again = decode_pairs(encode_pairs(ROW).astype("<i4").tobytes(), 7, 6)
    for one, other in zip(again[:4], ROW[:4], strict=True):
        np.testing.assert_array_equal(one, other)
