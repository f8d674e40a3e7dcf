"""Naive packing and causal objective: one token at a time."""

import numpy as np


def pack_rows(documents, bos, eos, length, keep_last):
    """Rows of (token, segment) pairs, cut from `[BOS] tokens [EOS]` end to end."""
    stream = []
    for number, ids in enumerate([d for d in documents if len(d)]):
        for token in [bos, *ids, eos]:
            stream.append((int(token), number))
    rows = []
    start = 0
    while start + 1 < len(stream):
        row = stream[start : start + length + 1]
        complete = len(row) == length + 1
        first = row[0][1]
        pairs = [(token, number - first + 1) for token, number in row]
        pairs += [(0, 0)] * (length + 1 - len(row))
        if complete or keep_last:
            rows.append(pairs)
        start += length
    return np.array(rows, np.int32).reshape(-1, length + 1, 2)


def causal_row(tokens, segments, isolate):
    """Lists of inputs, targets, segment ids, positions and weights of one row."""
    inputs, targets, segment_ids, positions, weights = [], [], [], [], []
    position = 0
    for i in range(len(tokens) - 1):
        here, there = segments[i], segments[i + 1]
        segment = here if isolate else min(here, 1)
        new = i == 0 or segment != segment_ids[-1]
        position = 0 if new else position + 1
        counts = here != 0 and there != 0 and (here == there or not isolate)
        inputs.append(tokens[i])
        targets.append(tokens[i + 1])
        segment_ids.append(segment)
        positions.append(position)
        weights.append(1.0 if counts else 0.0)
    return inputs, targets, segment_ids, positions, weights
