"""The parser of server-sent events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codefleet_cli.sse import EventParser, ServerEvent

STREAM = (
    ': keep-alive\r\n\r\nid: 7\r\nevent: log\r\ndata: {"text": "ü€😀"}\r\n\r\n'
    "data:one\rdata: two\r\rretry: 10\n\nevent: end\n\nid: 9\ndata: x: y\n\ndata: cut off"
).encode()
EVENTS = [
    ServerEvent("log", '{"text": "ü€😀"}', "7"),
    ServerEvent("message", "one\ntwo", None),
    ServerEvent("end", "", None),
    ServerEvent("message", "x: y", "9"),
]


def parse(*pieces):
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_a_whole_stream():
    assert parse(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_it_may_be_cut_anywhere(places):
    edges = sorted({0, len(STREAM), *places})
    assert parse(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_byte_by_byte():
    assert parse(*(bytes([byte]) for byte in STREAM)) == EVENTS


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\xef\xbb\xbfdata: x\n\n", [ServerEvent("message", "x")]),
        (b"data:  two spaces\n\n", [ServerEvent("message", " two spaces")]),
        (b"data\n\n", [ServerEvent("message", "")]),
        (b"unknown: x\nid: a\0b\ndata: x\n\n", [ServerEvent("message", "x")]),
        (b"data: \xff\n\n", [ServerEvent("message", "�")]),
        (b"\n\n\n", []),
    ],
)
def test_odd_fields(stream, expected):
    assert parse(stream) == expected


@given(st.binary())
def test_rubbish_is_survived(content):
    parse(content)
