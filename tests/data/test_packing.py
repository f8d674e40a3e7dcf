"""Packing against the naive twin."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.data import packing
from moe_jax.data.chunks import TokenChunk
from tests.reference.packing import pack_rows

DOCUMENTS = st.lists(st.lists(st.integers(3, 99), max_size=12), max_size=12)


def chunks_of(documents, cut=10**9):
    for ids in documents:
        parts = [ids[i : i + cut] for i in range(0, len(ids), cut)] or [[]]
        for index, part in enumerate(parts):
            yield TokenChunk(np.array(part, np.int32), len(part), index == 0)


def packed(documents, length, keep_last, cut=10**9):
    rows = list(packing.pack(chunks_of(documents, cut), 1, 2, length, keep_last))
    if not rows:
        return np.zeros([0, length + 1, 2], np.int32)
    tokens = np.concatenate([part.tokens for part in rows])
    segments = np.concatenate([part.segments for part in rows])
    return np.stack([tokens, segments], axis=-1)


@given(DOCUMENTS, st.integers(1, 9), st.booleans(), st.integers(1, 5))
@settings(deadline=None)
def test_rows_equal_the_naive_ones_however_documents_are_chunked(
    documents, length, keep_last, cut
):
    expected = pack_rows(documents, 1, 2, length, keep_last)
    np.testing.assert_array_equal(packed(documents, length, keep_last, cut), expected)


@given(DOCUMENTS, st.integers(1, 9))
@settings(deadline=None)
def test_every_token_but_the_first_is_a_target_exactly_once(documents, length):
    stream = [t for ids in documents if ids for t in [1, *ids, 2]]
    rows = packed(documents, length, keep_last=True)
    targets = rows[:, 1:]
    assert targets[targets[..., 1] > 0][:, 0].tolist() == stream[1:]


def test_blocks_leave_no_trace_in_the_rows(monkeypatch):
    documents = [list(range(3, 3 + n)) for n in (5, 1, 8, 30, 2)]
    whole = packed(documents, 4, keep_last=True)
    monkeypatch.setattr(packing, "_BLOCK_TOKENS", 3)
    np.testing.assert_array_equal(packed(documents, 4, keep_last=True), whole)


def test_memory_holds_a_block_not_the_corpus():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield TokenChunk(np.full(1000, 5, np.int32), 1000, True)

    next(packing.pack(endless(), 1, 2, 100, keep_last=False))
    assert taken * 1000 < 2 * packing._BLOCK_TOKENS
