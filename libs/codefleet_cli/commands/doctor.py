"""`doctor`: is everything in order, from here to a worker and back?"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import click

from codefleet_cli.commands.base import ApiCommand, Session, print_json
from codefleet_cli.commands.fleet import items_of
from codefleet_cli.errors import CommandError, RefusedError

_TASK_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was checked; `advice` is empty when `ok`."""

    name: str
    ok: bool
    seconds: float
    detail: str
    advice: str = ""


class Fault(Exception):  # noqa: N818 - what a check finds, not an error of the program
    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice


@click.command(cls=ApiCommand)
def doctor(session: Session) -> int:
    """Check the connection, the key, the server's health and its workers, and run a task that costs nothing.

    Exit code 1 if anything is wrong.
    """
    checks: list[Check] = []
    for name, look in _CHECKS:
        checks.append(_check(name, look, session))
        if not session.as_json:
            _print(checks[-1])
        # Without a connection or a key every later check would only say the same.
        if not checks[-1].ok and name in _NEEDED:
            break
    good = all(check.ok for check in checks)
    if session.as_json:
        print_json({"ok": good, "checks": [asdict(check) for check in checks]})
    elif len(checks) < len(_CHECKS):
        click.echo(f"  not checked: {', '.join(name for name, _ in _CHECKS[len(checks) :])}")
    return 0 if good else 1


def _check(name: str, look: Callable[[Session], str], session: Session) -> Check:
    began = time.monotonic()
    try:
        detail, advice, ok = look(session), "", True
    except Fault as fault:
        detail, advice, ok = fault.detail, fault.advice, False
    except CommandError as error:
        detail, advice, ok = error.message, error.advice or "see the server's log", False
    return Check(name=name, ok=ok, seconds=round(time.monotonic() - began, 3), detail=detail, advice=advice)


def _print(check: Check) -> None:
    from codefleet_cli.text import clean

    mark = click.style("✓", fg="green") if check.ok else click.style("✗", fg="red")
    click.echo(f"{mark} {check.name:<14} {check.seconds * 1000:6.0f} ms  {clean(check.detail)}")
    if check.advice:
        click.echo(f"  → {clean(check.advice)}")


def _configuration(session: Session) -> str:
    return f"{session.server.url} (from {session.server.origin})"


def _connection(session: Session) -> str:
    try:
        session.api.get("/health")
    except RefusedError as error:
        # Any answer in the server's own words shows that it is there; what it says is for the next checks.
        return f"answers (HTTP {error.status})"
    return "answers"


def _authentication(session: Session) -> str:
    if not session.server.api_key:
        raise Fault("no API key is set", "set CODEFLEET_API_KEY or use --api-key")
    session.api.get("/tasks", limit=1)
    return "the key is accepted"


def _health(session: Session) -> str:
    health = session.api.get("/health")
    status = str(health.get("status", "ok"))
    if status not in {"ok", "healthy", "pass"}:
        raise Fault(f"the server says {status}", _reasons(health) or "see `codefleet doctor --json` and its log")
    return status


def _reasons(health: dict[str, Any]) -> str:
    """What the server says of each part that is not in order."""
    parts = ((name, part) for name, part in (health.get("checks") or {}).items() if part.get("reason"))
    return " ".join(f"{name}: {part['reason']}. {part.get('advice') or 'See its log'}." for name, part in parts)


def _workers(session: Session) -> str:
    found = items_of(session.api.get("/workers"))
    online = [worker for worker in found if (worker.get("state") or worker.get("status")) == "online"]
    if not online:
        raise Fault("no worker is online", "start an executor; `codefleet up` starts one of each")
    executors = sorted({str(worker.get("executor")) for worker in online})
    return f"{len(online)} online ({', '.join(executors)})"


def _task(session: Session) -> str:
    body = {"name": "codefleet doctor", "type": "diagnostic", "timeout": _TASK_SECONDS, "max_retries": 0}
    task = session.api.post("/tasks", body, idempotency_key=str(uuid4()))
    task = _wait(session, task["task_id"])
    if task["status"] == "success":
        return "submitted, run and finished"
    if task["status"] in {"failure", "timeout", "cancelled"}:
        error = task.get("error") or {}
        raise Fault(f"{task['status']}: {error.get('message', '')}", error.get("advice") or _see(task["task_id"]))
    session.api.post(f"/tasks/{task['task_id']}/cancel", {"reason": "codefleet doctor stopped waiting"})
    raise Fault(
        f"still {task['status']} after {_TASK_SECONDS:g} s",
        "check that the scheduler runs and that a worker has a free slot (`codefleet workers`, `codefleet queues`)",
    )


def _wait(session: Session, task_id: str) -> dict[str, Any]:
    from codefleet_cli.model import OUTCOMES

    deadline = time.monotonic() + _TASK_SECONDS
    while True:
        left = max(1, round(deadline - time.monotonic()))
        task: dict[str, Any] = session.api.get(f"/tasks/{task_id}", wait=left)
        if task["status"] in OUTCOMES or time.monotonic() >= deadline:
            return task
        time.sleep(0.1)


def _see(task_id: str) -> str:
    return f"see `codefleet show {task_id}`"


_CHECKS: list[tuple[str, Callable[[Session], str]]] = [
    ("configuration", _configuration),
    ("connection", _connection),
    ("authentication", _authentication),
    ("health", _health),
    ("workers", _workers),
    ("task", _task),
]
_NEEDED = {"configuration", "connection", "authentication"}
