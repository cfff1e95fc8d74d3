"""The tools of the Cursor double. They do their work and describe it in Cursor's words."""

import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from codefleet_testkit.directives import Read, Run, Step, Tool, Write


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A step as Cursor names it, for instance `writeToolCall`."""

    name: str
    args: dict[str, Any]


def tool_call(step: Step) -> ToolCall:
    """How Cursor would announce the step."""
    match step:
        case Write():
            return ToolCall(name="writeToolCall", args={"path": step.path, "fileText": step.text})
        case Read():
            return ToolCall(name="readToolCall", args={"path": step.path})
        case Run():
            return ToolCall(name="shellToolCall", args={"command": step.command, "workingDirectory": ""})
        case Tool():
            return ToolCall(name="mcpToolCall", args={"toolName": step.name, "args": step.input})


def perform(step: Step, workspace: Path) -> dict[str, Any]:
    """Does the step. A file that cannot be had is an `error` result, a failing command a result like any other."""
    try:
        return _perform(step, workspace)
    except OSError as error:
        return {"error": {"message": str(error)}}


def _perform(step: Step, workspace: Path) -> dict[str, Any]:
    match step:
        case Write():
            return _write(workspace / step.path, step.text)
        case Read():
            return _read(workspace / step.path)
        case Run():
            return _run(step.command, workspace)
        case Tool():
            return {"error": {"message": f"no MCP server offers {step.name}"}}


def _write(path: Path, text: str) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = path.write_bytes(text.encode())
    return {"success": {"path": str(path), "linesCreated": len(text.splitlines()), "fileSize": size}}


def _read(path: Path) -> dict[str, Any]:
    content = path.read_text()
    return {
        "success": {
            "content": content,
            "isEmpty": not content,
            "exceededLimit": False,
            "totalLines": len(content.splitlines()),
            "totalChars": len(content),
        }
    }


def _run(command: str, workspace: Path) -> dict[str, Any]:
    started = time.monotonic()
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=workspace,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return {
        "success": {
            "command": command,
            "exitCode": done.returncode,
            "stdout": done.stdout,
            "stderr": done.stderr,
            "executionTime": int((time.monotonic() - started) * 1000),
        }
    }
