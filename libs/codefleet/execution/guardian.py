"""Starts one agent and sees its whole process tree dead when its right to run ends.

Run as a file, one process per agent, by `supervisor.launch`; it imports nothing of codefleet, so that it starts in
milliseconds. It lives in its own session, carries nothing of the agent's output and is the child subreaper of
everything the agent starts: whoever double-forks away becomes its child, so "no children left" proves the tree dead.

The agent's right to run ends when its main process ends, at a `kill`, when the lease runs out, or when the control
pipe closes, which is how the executor's death shows. A frozen executor cannot renew, so the lease covers it.

    guardian.py LAUNCH_ID CONTROL_FD REPORT_FD SPECIFICATION_FD     with the agent's stdin, stdout and stderr as its own

    control, one command a line:   renew SECONDS · signal NAME · signal-tree NAME · kill
    report, one JSON object a line:
        {"event": "started", "pid"}   or   {"event": "failed", "errno", "message"}, and then
        {"event": "exited", "exit_code", "signal", "cpu_seconds", "max_memory_bytes", "survivors_killed",
         "reason": "exit" | "lease" | "orphaned" | "killed"}

See prctl(2): PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS.
"""

# pathlib and contextlib would take longer to import than all the rest of the start.
# ruff: noqa: PTH110, PTH208, SIM105

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_LONGEST_SLEEP_SECONDS = 1.0
"""A poll's time-out stands still while the machine is suspended and CLOCK_BOOTTIME does not: look now and then."""

_STRAYS_SECONDS = 5.0
"""How long to go on killing processes with the launch's id that are not of the tree and so cannot be waited for."""


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _read(path: str) -> bytes:
    """A file's content; nothing if its process is gone or not ours to look at."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        chunks = []
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _listed_children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for thread in threads for child in _read(f"/proc/{pid}/task/{thread}/children").split()]


def _searched_children(pid: int) -> list[int]:
    """The same for a kernel without CONFIG_PROC_CHILDREN, at the price of reading about every process there is."""
    parent = str(pid).encode()
    return [other for other in _processes() if _parent(other) == parent]


def _parent(pid: int) -> bytes:
    # pid (name) state parent …, where the name may hold anything
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[1] if fields else b""


def _children(pid: int) -> list[int]:
    guardian = os.getpid()
    listed = os.path.exists(f"/proc/{guardian}/task/{guardian}/children")
    return _listed_children(pid) if listed else _searched_children(pid)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it is gone


class Tree:
    """The agent's processes, and what they used up.

    `cpu_seconds` is the whole tree's; `max_memory_bytes` is the largest of its processes', never less than this
    process's own size, which the kernel carries over an exec.
    """

    def __init__(self, main: int, launch_id: str) -> None:
        self.main = main
        self.main_status: int | None = None
        self.cpu_seconds = 0.0
        self.max_memory_bytes = 0
        self.survivors_killed = 0
        self._killing = False
        self._entry = f"CODEFLEET_LAUNCH={launch_id}".encode()

    def reap(self) -> bool:
        """Buries the dead children; False when none are left, dead or alive, and so no descendants either."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            self.max_memory_bytes = max(self.max_memory_bytes, usage.ru_maxrss * 1024)
            if pid == self.main:
                self.main_status = status
            elif self._killing and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self.survivors_killed += 1

    def signal(self, number: int) -> None:
        """Sends a signal to every process of the tree."""
        pending = _children(os.getpid())
        while pending:
            pid = pending.pop()
            pending += _children(pid)
            _signal(pid, number)

    def kill(self) -> None:
        """Returns when no process of the tree is alive."""
        self._killing = True
        started = _now()
        while self.reap():
            self._kill_once()
            # In haste at first: a process that forks and exits in a loop is only hit by many throws.
            time.sleep(min(0.02, (_now() - started) / 20))
        self._kill_strays()

    def _kill_once(self) -> None:
        own_group = os.getpgid(0)
        pending = _children(os.getpid())
        while pending:
            pid = pending.pop()
            try:
                group = os.getpgid(pid)
            except OSError:
                continue
            pending += _children(pid)
            # No fork slips through between the members of a group, as one does between two kills.
            _signal(pid if group == own_group else -group, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """The second net: whatever carries the launch's id although it is not of the tree."""
        killed: set[int] = set()
        deadline = _now() + _STRAYS_SECONDS
        while (strays := self._strays()) and _now() < deadline:
            for pid in strays:
                _signal(pid, signal.SIGKILL)
            killed.update(strays)
            time.sleep(0.005)
        self.survivors_killed += len(killed)

    def _strays(self) -> list[int]:
        guardian = os.getpid()
        return [
            pid for pid in _processes() if pid != guardian and self._entry in _read(f"/proc/{pid}/environ").split(b"\0")
        ]


def _become_agent(argv: list[str], cwd: str, environment: dict[str, str], guardian: int) -> None:
    """Turns this forked process into the agent.

    Raises:
        OSError: it cannot be; the text names what is missing.
    """
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:
        os._exit(1)
    # A set-uid program would be out of an ordinary user's reach: it could not be killed.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    subject = cwd
    try:
        os.chdir(cwd)
        subject = argv[0]
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell on purpose
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {subject!r}") from error


def _spawn(argv: list[str], cwd: str, environment: dict[str, str]) -> int:
    """Starts the agent in a session of its own.

    Raises:
        OSError: it could not be started; nothing of it is left.
    """
    reading, writing = os.pipe()
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_agent(argv, cwd, environment, guardian)
        except BaseException as error:  # noqa: BLE001 - nothing may run on in the forked copy
            number = getattr(error, "errno", None) or errno.EINVAL  # such as a zero byte in an argument
            os.write(writing, f"{number} {getattr(error, 'strerror', None) or error}".encode(errors="replace")[:4000])
        os._exit(127)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as failures:
        number_text, _, message = failures.read().partition(" ")
    if number_text:
        os.waitpid(pid, 0)
        raise OSError(int(number_text), message)
    return pid


def _listen_to_signals() -> int:
    """Returns a descriptor on which the number of each signal arrives as a byte."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


class Watch:
    """Waits for the end of the agent's right to run."""

    def __init__(self, tree: Tree, control: int, signals: int, lease_seconds: float) -> None:
        self._tree = tree
        self._control = control
        self._signals = signals
        self._deadline = _now() + lease_seconds
        self._unread = b""

    def run(self) -> str:
        """Returns the reason."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        ready: set[int] = set()
        while True:
            self._tree.reap()
            if self._tree.main_status is not None:
                return "exit"
            # Before the control pipe is read: a renewal that lay unread until the lease was over comes too late.
            remaining = self._deadline - _now()
            if remaining <= 0:
                return "lease"
            if self._signals in ready and set(os.read(self._signals, 512)) - {signal.SIGCHLD}:
                return "killed"
            if self._control in ready and (reason := self._obey()):
                return reason
            sleep_seconds = min(max(self._deadline - _now(), 0), _LONGEST_SLEEP_SECONDS)
            ready = {descriptor for descriptor, _ in poll.poll(sleep_seconds * 1000 + 1)}

    def _obey(self) -> str | None:
        chunk = os.read(self._control, 4096)
        if not chunk:
            return "orphaned"
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            verb, _, argument = line.decode().partition(" ")
            if verb == "renew":
                self._deadline = _now() + float(argument)
            elif verb == "signal":
                _signal(self._tree.main, signal.Signals[f"SIG{argument}"])
            elif verb == "signal-tree":
                self._tree.signal(signal.Signals[f"SIG{argument}"])
            elif verb == "kill":
                return "killed"
        return None


def _report(descriptor: int, event: str, **fields: object) -> None:
    try:
        os.write(descriptor, json.dumps({"event": event, **fields}).encode() + b"\n")
    except OSError:
        pass  # nobody is left to hear it


def _exited(tree: Tree, reason: str) -> dict[str, object]:
    code = os.waitstatus_to_exitcode(tree.main_status or 0)
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "cpu_seconds": tree.cpu_seconds,
        "max_memory_bytes": tree.max_memory_bytes,
        "survivors_killed": tree.survivors_killed,
        "reason": reason,
    }


def _let_go_of_stdio() -> None:
    """The agent alone holds its pipes, so that they end when it does."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def main(launch_id: str, *descriptors: str) -> None:
    control, report, specification = map(int, descriptors)
    for descriptor in (control, report):
        os.set_inheritable(descriptor, False)
    with os.fdopen(specification, encoding="utf-8") as file:
        wanted = json.load(file)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signals = _listen_to_signals()
    try:
        pid = _spawn(wanted["argv"], wanted["cwd"], wanted["environment"])
    except OSError as error:
        _report(report, "failed", errno=error.errno, message=error.strerror)
        return
    tree = Tree(pid, launch_id)
    reason = "killed"
    try:
        _let_go_of_stdio()
        _report(report, "started", pid=pid)
        reason = Watch(tree, control, signals, wanted["lease_seconds"]).run()
    finally:
        tree.kill()
        _report(report, "exited", **_exited(tree, reason))


if __name__ == "__main__":
    main(*sys.argv[1:])
