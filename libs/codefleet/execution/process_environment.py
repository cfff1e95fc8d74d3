"""What an agent sees of the executor's environment, and the marker in it by which its processes are found again."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

MARKER_VARIABLE = "CODEFLEET_RUN"
"""Its value, "<task_id>:<epoch>", is shared by everything that was launched for a run."""

LAUNCH_VARIABLE = "CODEFLEET_LAUNCH"
"""Its value is of one launch only, so that its guardian spares the run's other processes."""

RESERVED_PREFIX = "CODEFLEET_"

_PASSED = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    | {name for proxy in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())}
)

_SWEEP_SECONDS = 2.0

_CLEAN_LOOKS = 2
"""A process in the midst of an exec shows no environment for a moment."""


def child_environment(environ: Mapping[str, str], names: Iterable[str], extra: Mapping[str, str]) -> dict[str, str]:
    """An agent's complete environment: what is harmless, what the driver names, and what it sets itself.

    Args:
        environ: the executor's own environment.
        names: further variables to take over from it.
        extra: variables to set, over what was taken.

    Nothing called CODEFLEET_* passes by any of the three ways: codefleet's own settings hold its secrets.
    """
    allowed = _PASSED.union(names)
    taken = {name: value for name, value in environ.items() if name in allowed or name.startswith("LC_")}
    return without_reserved({**taken, **extra})


def without_reserved(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(RESERVED_PREFIX)}


def sweep(task_id: str, *, below_epoch: int | None = None) -> int:
    """Kills what older runs of a task left on this machine, and returns how many processes that were.

    Runs of `below_epoch` and later ones are spared; None spares none. Blocks for some milliseconds, two seconds
    at most if the processes keep multiplying.
    """

    def is_stale(marker: str) -> bool:
        task, _, epoch = marker.rpartition(":")
        return task == task_id and (below_epoch is None or (epoch.isdecimal() and int(epoch) < below_epoch))

    return kill_marked(MARKER_VARIABLE, is_stale)


def kill_marked(variable: str, condemned: Callable[[str], bool]) -> int:
    """Kills every process but this one whose value of `variable` is condemned, until none is found.

    Returns how many.
    """
    killed: set[int] = set()
    out_of_reach: set[int] = {os.getpid()}
    clean_looks = 0
    deadline = time.monotonic() + _SWEEP_SECONDS
    while clean_looks < _CLEAN_LOOKS and time.monotonic() < deadline:
        found = {pid for pid, value in _marked(variable) if condemned(value)} - out_of_reach
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                continue
            except PermissionError:
                out_of_reach.add(pid)
        clean_looks = 0 if found else clean_looks + 1
        time.sleep(0.005)
    return len(killed)


def _marked(variable: str) -> list[tuple[int, str]]:
    prefix = f"{variable}=".encode()
    marked = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for every process on the machine takes twice as long
        if not name.isdecimal():
            continue
        content = b""
        with suppress(OSError):  # gone, or somebody else's
            content = Path("/proc", name, "environ").read_bytes()
        if prefix not in content:
            continue
        marked += [
            (int(name), entry.removeprefix(prefix).decode(errors="replace"))
            for entry in content.split(b"\0")
            if entry.startswith(prefix)
        ]
    return marked
