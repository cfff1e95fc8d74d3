from hypothesis import given
from hypothesis import strategies as st

from codefleet.execution.process_output import LineSplitter


def split(splitter: LineSplitter, *chunks: bytes) -> list[tuple[bytes, bool]]:
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()


def test_a_line_may_arrive_in_pieces_and_needs_no_end():
    assert split(LineSplitter(100), b"one\ntw", b"o\n", b"three") == [
        (b"one", False),
        (b"two", False),
        (b"three", False),
    ]


def test_a_carriage_return_before_the_line_end_belongs_to_it():
    assert split(LineSplitter(100), b"one\r\n\r\ntw\ro\n") == [(b"one", False), (b"", False), (b"tw\ro", False)]


def test_a_long_line_is_cut_and_the_rest_counted():
    splitter = LineSplitter(3)
    assert split(splitter, b"ab", b"cd", b"ef\nabc\n") == [(b"abc", True), (b"abc", False)]
    assert splitter.dropped_bytes == 3


@given(content=st.binary(max_size=200), size=st.integers(1, 50), limit=st.integers(1, 60))
def test_chunks_do_not_matter_and_no_byte_is_unaccounted_for(content: bytes, size: int, limit: int):
    content = content.replace(b"\r", b"")
    whole, pieces = LineSplitter(limit), LineSplitter(limit)
    expected = split(whole, content)
    assert split(pieces, *(content[start : start + size] for start in range(0, len(content), size))) == expected
    assert pieces.dropped_bytes == whole.dropped_bytes
    assert sum(len(line) for line, _ in expected) + whole.dropped_bytes == len(content) - content.count(b"\n")
    assert all(len(line) <= limit for line, _ in expected)
