"""Task ids as people type them."""

import re

from codefleet_cli.client import Api
from codefleet_cli.errors import InvalidInputError
from codefleet_cli.model import is_whole_id

_RECENT_TASKS = 100
_SHORTEST_PREFIX = 6
_ID_PART = re.compile(r"[0-9a-f-]+")


def resolve_id(api: Api, given: str) -> str:
    """The whole id that `given` is or abbreviates.

    An abbreviation has at least 6 characters and is looked for among the 100 latest tasks.

    Raises:
        InvalidInputError: it is no id, or fits none or several of them.
    """
    wanted = given.strip().lower()
    if is_whole_id(wanted):
        return wanted
    if not _ID_PART.fullmatch(wanted) or len(wanted) < _SHORTEST_PREFIX:
        raise InvalidInputError(f"{given!r} is not a task id", advice="see `codefleet ls`; the first 6 characters do")
    page = api.get("/tasks", limit=_RECENT_TASKS)
    found = [str(item["task_id"]) for item in page["items"] if str(item["task_id"]).startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(f"{given!r} fits {len(found)} tasks", advice="give more of the id")
    raise InvalidInputError(
        f"none of the {_RECENT_TASKS} latest tasks has an id that begins with {given!r}", advice="give the whole id"
    )
