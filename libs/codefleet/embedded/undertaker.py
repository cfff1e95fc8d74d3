"""Ends process groups whose supervisor was killed: PR_SET_PDEATHSIG reaches children, not what they started.

Run as a file, so that it starts in milliseconds. Standard input brings one signed number a line: `+PID` for a group to
watch, `-PID` for one that is gone. When the input ends, whatever the reason, the watched groups get SIGKILL.
"""

import os
import signal
import sys


def main() -> None:
    watched: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            watched.add(int(line))
        else:
            watched.discard(-int(line))
    for group in watched:
        try:  # noqa: SIM105 - contextlib would be most of the start
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


if __name__ == "__main__":
    main()
