"""Span corruption by hand, by a twin, and by T5's published lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.data.denoisers import UL2, Denoiser, Lengths
from moe_jax.data.spans import collapse, noise_of, random_spans
from tests.reference import spans as naive

pytestmark = pytest.mark.fast

EOS = 1
SENTINELS = np.arange(99, 59, -1, dtype=np.int32)
MODES = {"R": 50, "X": 51, "S": 52}


def sides(text, noise):
    """The ids of both sides for a given mask, EOS aside."""
    tokens, mask = np.array(text, np.int32), np.array(noise, bool)
    return [collapse(tokens, m, SENTINELS)[0].tolist() for m in (mask, ~mask)]


def test_a_given_mask_gives_the_papers_example():
    # Thank you <for inviting> me to your party <last> week
    inputs, targets = sides(range(10, 20), [0, 0, 1, 1, 0, 0, 0, 0, 1, 0])
    assert inputs == [10, 11, 99, 14, 15, 16, 17, 98, 19]
    # The complement begins with what is kept: its sentinel comes first.
    assert targets == [99, 12, 13, 98, 18, 97]


def test_a_mask_that_ends_with_noise_leaves_no_sentinel_behind():
    inputs, targets = sides([10, 11, 12, 13, 14], [0, 1, 1, 0, 1])
    assert inputs == [10, 99, 13, 98]
    assert targets == [99, 11, 12, 98, 14]


@pytest.mark.parametrize(
    ("length", "density", "mean", "tokens", "spans"),
    [
        (568, 0.15, 3.0, 85, 28),
        (10, 0.15, 3.0, 2, 1),  # 1.5 rounds to even
        (2, 0.15, 3.0, 1, 1),
        (4, 0.9, 1.0, 3, 1),  # one kept token has room for one span
        (100, 0.5, 8.0, 50, 6),
    ],
)
def test_noise_follows_from_the_length_alone(length, density, mean, tokens, spans):
    assert noise_of(length, density, mean) == (tokens, spans)


def test_t5s_lengths_are_the_published_ones():
    denoiser = Denoiser("span_corruption", 0.15, 3.0)
    room = Lengths(512, 1 << 20, 1 << 20)
    assert denoiser.most_tokens(room) == 568
    assert denoiser.lengths(568)[:2] == (512, 114)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(2, 120),
    density=st.floats(0.05, 0.9),
    mean=st.floats(1.0, 20.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_masks_have_their_counts_and_begin_with_a_kept_token(
    length, density, mean, seed
):
    mask = random_spans(length, density, mean, np.random.default_rng(seed))
    noise = noise_of(length, density, mean)
    assert mask.shape == (length,)
    assert mask.sum() == noise.tokens
    assert np.count_nonzero(np.diff(mask.astype(int)) == 1) == noise.spans
    assert not mask[0]
    assert mask[-1]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(2, 80),
    which=st.integers(0, len(UL2) - 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_sides_hold_the_whole_text_once(length, which, seed):
    denoiser, tokens = UL2[which], np.arange(100, 100 + length, dtype=np.int32)
    example = denoiser.example(
        tokens,
        np.random.default_rng(seed),
        eos_id=EOS,
        sentinels=SENTINELS,
        modes=MODES,
    )
    inputs, targets = example.inputs.tolist(), example.targets.tolist()
    assert inputs[0] == MODES[denoiser.mode]
    assert inputs[-1] == targets[-1] == EOS
    assert denoiser.lengths(length).hold(example.lengths)
    inputs = inputs[1:]
    if denoiser.kind == "span_corruption":
        noise = [token not in inputs for token in tokens]
        assert (inputs, targets) == naive.corrupt(tokens, noise, SENTINELS, EOS)
        text = naive.restore(inputs, targets, SENTINELS, EOS)
    else:
        text = inputs[:-1] + targets[:-1]
    assert text == tokens.tolist()


def test_every_mask_of_a_length_is_as_likely():
    # 6 tokens, 3 of them noise in 2 spans: 2 x 2 ways to cut both.
    rng = np.random.default_rng(0)
    drawn = [tuple(random_spans(6, 0.5, 1.5, rng).tolist()) for _ in range(2000)]
    shares = [drawn.count(mask) / 2000 for mask in set(drawn)]
    assert len(shares) == 4
    np.testing.assert_allclose(shares, 0.25, atol=0.05)


@pytest.mark.parametrize("denoiser", UL2)
def test_as_many_tokens_as_fit_are_taken_and_not_one_more(denoiser):
    room = Lengths(64, 32, 96)
    count = denoiser.most_tokens(room)
    assert room.hold(denoiser.lengths(count))
    assert not room.hold(denoiser.lengths(count + 1))
    assert denoiser.most_tokens(room, 7) == 7
