"""The causal objective against the naive twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.data.objectives import causal
from tests.reference.packing import causal_row, pack_rows

NAMES = ("tokens", "targets", "segment_ids", "positions", "weights")


@pytest.mark.parametrize("isolate", [True, False])
@given(
    documents=st.lists(
        st.lists(st.integers(3, 99), max_size=9), min_size=1, max_size=9
    ),
    length=st.integers(1, 9),
)
@settings(deadline=None)
def test_batch_equals_the_naive_one(isolate, documents, length):
    rows = pack_rows(documents, 1, 2, length, keep_last=True)
    batch = causal(rows[..., 0], rows[..., 1], isolate)
    for index, row in enumerate(rows):
        expected = causal_row(row[:, 0].tolist(), row[:, 1].tolist(), isolate)
        for name, values in zip(NAMES, expected, strict=True):
            assert batch[name][index].tolist() == values, name


def test_isolated_documents_begin_at_position_zero_and_never_predict_the_next():
    tokens = np.array([[1, 7, 2, 1, 8, 2, 0]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 2, 0]], np.int32)
    batch = causal(tokens, segments, isolate_documents=True)
    assert batch["positions"][0].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch["weights"][0].tolist() == [1, 1, 0, 1, 1, 0]
    joined = causal(tokens, segments, isolate_documents=False)
    assert joined["positions"][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert joined["weights"][0].tolist() == [1, 1, 1, 1, 1, 0]


def test_types_are_those_of_the_contract():
    row = np.ones([2, 5], np.int32)
    batch = causal(row, row, isolate_documents=True)
    assert {name: array.dtype for name, array in batch.items()} == {
        "tokens": np.int32,
        "targets": np.int32,
        "segment_ids": np.int32,
        "positions": np.int32,
        "weights": np.float32,
    }
    assert all(array.shape == (2, 4) for array in batch.values())
