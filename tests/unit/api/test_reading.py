"""Complaints about input, as field and reason."""

from typing import Any

import msgspec
import pytest

from codefleet.errors import InvalidFieldError
from services.api.reading import check_no_nul, invalid_field


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: int


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    items: list[int] = []


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        ({"nonsense": 1}, "nonsense", "is not known"),
        ({"inner": {}}, "inner.number", "is required"),
        ({"inner": {"number": 1, "more": 2}}, "inner.more", "is not known"),
        ({"inner": {"number": "1"}}, "inner.number", "Expected `int`, got `str`"),
        ({"items": [1, None]}, "items[1]", "Expected `int`, got `null`"),
        ([], "", "Expected `object`, got `array`"),
    ],
)
def test_a_complaint_names_the_field(value: Any, field: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as complaint:
        msgspec.convert(value, Outer)
    refused = invalid_field(complaint.value)
    assert refused.details == {"field": field, "reason": reason}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("\0", "f"),
        ({"a": {"b": ["x", "y\0"]}}, "f.a.b[1]"),
        ({"k\0": 1}, "f"),
    ],
)
def test_a_nul_is_found_wherever_it_hides(value: Any, field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        check_no_nul(value, "f")
    assert refused.value.details["field"] == field


def test_other_values_have_no_nul() -> None:
    check_no_nul({"a": ["b", 1, None, True, 1.5]}, "")
