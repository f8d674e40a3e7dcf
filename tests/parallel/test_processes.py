"""What several processes need to know of each other, as far as one can tell."""

import hypothesis
import hypothesis.strategies as st
import pytest

from moe_jax.errors import UserError
from moe_jax.parallel import processes


@st.composite
def blocks(draw):
    """Some of the equal blocks that a batch is cut into, and its rows."""
    count = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 16]))
    size = draw(st.integers(1, 3))
    chosen = draw(st.sets(st.integers(0, count - 1), min_size=1))
    return [slice(i * size, (i + 1) * size) for i in sorted(chosen)], count * size


@hypothesis.given(blocks())
def test_no_smaller_part_of_a_batch_holds_all_the_blocks(case):
    needed, rows = case
    index, count = processes.smallest_part(needed, rows)

    def holds(index, count):
        size = rows // count
        start, stop = index * size, (index + 1) * size
        return all(start <= block.start and block.stop <= stop for block in needed)

    assert holds(index, count)
    finer = [n for n in range(count + 1, rows + 1) if rows % n == 0]
    assert not any(holds(i, n) for n in finer for i in range(n))


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        ([slice(0, 4), slice(4, 8)], (0, 2)),  # four devices of eight, side by side
        ([slice(8, 16)], (1, 2)),
        ([slice(None)], (0, 1)),  # a model axis over all processes
        ([slice(0, 2), slice(4, 6)], (0, 2)),  # a square of a torus
        ([slice(0, 2), slice(14, 16)], (0, 1)),
    ],
)
def test_a_process_reads_the_part_that_its_devices_lie_in(needed, expected):
    assert processes.smallest_part(needed, 16) == expected


def test_one_process_agrees_with_itself():
    assert processes.agreed(7) == 7
    assert processes.which(True) == [0]
    assert processes.which(False) == []
    processes.check_alike({"seed": 1}, "config")
    processes.raise_on_all(None, "nothing")
    with pytest.raises(UserError, match="why"):
        processes.raise_on_all(UserError("why"), "something")
