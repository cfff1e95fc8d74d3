import re

import pytest

from codefleet import errors
from codefleet.errors import CodefleetError, ConflictError, IllegalTransitionError, InvalidFieldError, UnavailableError

TREE = dict(re.findall(r"(\w+Error) +(\d{3} +[A-Z_]+)", errors.__doc__ or ""))


def all_errors(root: type[CodefleetError] = CodefleetError) -> list[type[CodefleetError]]:
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]


@pytest.mark.parametrize("error", [error for error in all_errors() if error.__module__ == errors.__name__])
def test_the_tree_in_the_docstring_is_the_tree_in_the_code(error: type[CodefleetError]):
    assert TREE[error.__name__].split() == [str(error.status), error.code]


def test_every_error_of_the_docstring_exists():
    assert set(TREE) <= {error.__name__ for error in all_errors()}


def test_details_are_for_programs():
    refused = InvalidFieldError("priority", "too high", limit=10)
    assert refused.details == {"field": "priority", "reason": "too high", "limit": 10}
    assert str(refused) == refused.message == "priority: too high"
    assert str(InvalidFieldError("", "not this way")) == "not this way"
    assert UnavailableError("away").details == {"retry_after_seconds": 2}
    assert issubclass(IllegalTransitionError, ConflictError)
