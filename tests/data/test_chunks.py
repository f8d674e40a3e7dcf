"""Text in parts is the text."""

import io

from hypothesis import given
from hypothesis import strategies as st

from moe_jax.data.chunks import read_text, split_text


@given(st.text().map(lambda text: text.replace("\0", "")), st.integers(4, 9))
def test_parts_join_to_the_text_and_do_not_depend_on_the_way_in(text, size):
    parts = list(split_text(text, size))
    assert "".join(parts) == text
    assert "" not in parts
    file = io.BytesIO(text.encode())
    assert list(read_text(file, "name", chunk_bytes=size)) == parts


@given(st.text(alphabet="aé字\n"), st.integers(0, 40), st.integers(4, 9))
def test_reading_stops_at_the_offset(text, stop, size):
    data = text.encode()
    while stop < len(data) and data[stop] & 0xC0 == 0x80:
        stop += 1
    parts = read_text(io.BytesIO(data), "name", stop, size)
    assert "".join(parts).encode() == data[:stop]
