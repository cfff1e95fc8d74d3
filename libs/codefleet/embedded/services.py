"""The five services as data, and how many of each to run."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from codefleet.embedded.children import Failure
from codefleet.embedded.logs import parse_line
from codefleet.errors import ConfigurationError

API = "api"
SCHEDULER = "scheduler"
MONITOR = "monitor"
EXECUTOR_PREFIX = "executor-"
_MOST_PROCESSES = 64


def _module(name: str) -> tuple[str, ...]:
    # -P: a `services` folder in the user's own project must not shadow ours.
    return (sys.executable, "-P", "-m", f"services.{name}")


SERVICES: Mapping[str, tuple[str, ...]] = {
    API: _module("api"),
    SCHEDULER: _module("scheduler"),
    "executor-claude": _module("executor_claude"),
    "executor-cursor": _module("executor_cursor"),
    MONITOR: _module("monitor"),
}


def parse_scale(values: Iterable[str], services: Mapping[str, tuple[str, ...]] = SERVICES) -> dict[str, int]:
    """`SERVICE=N` items as numbers.

    Raises:
        ConfigurationError: unknown service, no number, a negative one, or none of a service that nothing works without.
    """
    scale: dict[str, int] = {}
    for value in values:
        name, _, number = value.partition("=")
        if name not in services:
            raise ConfigurationError(f"--scale {value}: expected one of {', '.join(services)}, got {name!r}")
        lowest = 1 if name in {API, SCHEDULER} else 0
        if not (number.isascii() and number.isdigit() and int(number) >= lowest):
            raise ConfigurationError(f"--scale {value}: expected a number of at least {lowest}, got {number!r}")
        if int(number) > _MOST_PROCESSES:
            raise ConfigurationError(f"--scale {value}: expected at most {_MOST_PROCESSES} processes on one machine")
        scale[name] = int(number)
    return scale


def explain(code: int, lines: Sequence[str]) -> Failure:
    """What a service's exit means: its last error line, with the remedy where there is one."""
    last = _last_error(lines)
    if "No module named" in last:
        return Failure(reason=f"{last}: pip install 'codefleet[all]'", final=True)
    if "ddress already in use" in last or "ddress in use" in last:
        return Failure(reason=f"{last}: stop what listens there, or choose another --port")
    return Failure(reason=f"exit {code}: {last}")


def _last_error(lines: Sequence[str]) -> str:
    plain = ""
    for line in reversed(lines):
        fields = parse_line(line)
        if fields and fields.get("level") in {"error", "critical"}:
            detail = fields.get("error") or _last_line(fields.get("exception"))
            return f"{fields['event']}: {detail}" if detail else str(fields["event"])
        if fields is None and not plain:
            plain = line.strip()
    return plain or "no error was printed"


def _last_line(text: object) -> str:
    return text.strip().rpartition("\n")[2] if isinstance(text, str) else ""
