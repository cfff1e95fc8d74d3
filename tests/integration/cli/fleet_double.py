"""A small HTTP server that keeps the API's contract, and breaks connections when told to."""

import json
import socket
import struct
import threading
import uuid
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

API_KEY = "cf_test_key"
DEADLINE_SECONDS = 10.0
NOW = "2026-01-01T10:00:{:02}Z"


class Plan:
    """What becomes of the tasks that are added next."""

    def __init__(self, lines=("line 1", "line 2"), outcome="success", **fields):
        self.lines = list(lines)
        self.outcome = outcome
        self.fields = fields


class FleetDouble:
    """A server and what it has been asked.

    `answers` come first, whatever is asked; `cuts` say for each stream that is opened after how many events it breaks;
    `hold` stops streams at that point, and before their end, until `go_on` or a stop.
    """

    def __init__(self):
        self.plan = Plan()
        self.tasks, self.logs, self.by_key = {}, {}, {}
        self.workers = [{"worker_id": "w1", "executor": "claude", "state": "online", "slots": 3}]
        self.health = {"status": "ok"}
        self.requests = []
        self.answers = deque()
        self.cuts = {"logs": deque(), "events": deque()}
        self.lost_answers = 0
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.hold = False
        self.held = []
        self.stopped = threading.Event()
        self._server, self._port = None, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}"

    def start(self):
        self.stopped.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.fleet = self
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method, suffix=""):
        return [
            request for request in self.requests if request["method"] == method and request["path"].endswith(suffix)
        ]

    def add(self, **fields):
        """A task that has run its course, as the plan says."""
        task_id = fields.pop("task_id", None) or str(uuid.uuid4())
        plan = self.plan
        states = ["pending", "received", "started", "running", plan.outcome]
        history = [
            {"from": before, "to": to, "at": NOW.format(place), "cause": f"cause {place}", "actor": "x", "attempt": 1}
            for place, (before, to) in enumerate(zip([None, *states], states, strict=False))
        ]
        task = {
            "task_id": task_id,
            "name": "",
            "type": "agent",
            "executor": "claude",
            "status": plan.outcome,
            "priority": 5,
            "created_at": NOW.format(0),
            "started_at": NOW.format(2),
            "completed_at": NOW.format(4),
            "duration": 2.0,
            "history": history,
            "progress": {"percentage": 50.0, "current_step": "step one", "total_steps": None, "details": {}},
            "usage": {"input_tokens": 1234, "output_tokens": 56, "cost_usd": 0.0123, "cpu_seconds": 1.5},
            "result": "all done",
            "error": None,
        }
        self.tasks[task_id] = task | plan.fields | fields
        self.logs[task_id] = [
            {"line": 1_000_000_000 + n, "attempt": 1, "stream": "stdout", "text": line, "at": NOW.format(3)}
            for n, line in enumerate(plan.lines)
        ]
        return self.tasks[task_id]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fleet: FleetDouble

    def handle_error(self, request, client_address):
        pass


class _CutError(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def fleet(self):
        return self.server.fleet

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._serve("GET")

    def do_POST(self):
        self._serve("POST")

    def _serve(self, method):
        parts = urlsplit(self.path)
        query = {name: values if name == "status" else values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = parts.path.removeprefix("/api/v1")
        noted = {"method": method, "path": path, "query": query, "body": body, "headers": dict(self.headers)}
        self.fleet.requests.append(noted)
        try:
            self._answer(method, path, query, body)
        except _CutError:
            self._abort()

    def _answer(self, method, path, query, body):
        if self.headers.get("Authorization") != f"Bearer {API_KEY}":
            self._refuse(401, "UNAUTHENTICATED", "The API key is not known")
        elif self.fleet.answers:
            self._send(*self.fleet.answers.popleft())
        else:
            self._route(method, path, query, body)

    def _route(self, method, path, query, body):
        if method == "POST" and path == "/tasks":
            return self._submit(body)
        if path == "/tasks":
            return self._list(query)
        fixed = {
            "/workers": {"items": self.fleet.workers},
            "/queues": {"items": [{"name": "default"}]},
            "/health": self.fleet.health,
        }
        if path in fixed:
            return self._data(fixed[path])
        _, _, task_id, *rest = path.split("/")
        if task_id not in self.fleet.tasks:
            return self._refuse(404, "NOT_FOUND", f"There is no task {task_id}")
        return self._one(self.fleet.tasks[task_id], rest, query, body)

    def _one(self, task, rest, query, body):
        task_id = task["task_id"]
        if rest == ["cancel"]:
            if task["status"] == "success":
                return self._refuse(409, "ILLEGAL_TRANSITION", "A task cannot move from success to cancelling")
            task["status"], task["reason"] = "cancelled", body.get("reason")
        if rest == ["logs"] and "follow" in query:
            entries = [entry for entry in self.fleet.logs[task_id] if entry["line"] > self._after(query)]
            return self._stream("logs", [("log", entry["line"], entry) for entry in entries])
        if rest == ["logs"]:
            return self._log_page(task_id, query)
        if rest == ["events"]:
            seen = self._after(query)
            moves = [("state", n, move) for n, move in enumerate(task["history"]) if n > seen]
            return self._stream("events", [*moves[:3], ("progress", None, task["progress"]), *moves[3:]])
        return self._data(task)

    def _after(self, query):
        return int(self.headers.get("Last-Event-ID") or query.get("after") or -1)

    def _submit(self, body):
        key = self.headers["Idempotency-Key"]
        known = self.fleet.by_key.get(key)
        task = self.fleet.tasks[known] if known else self.fleet.add(**body)
        self.fleet.by_key[key] = task["task_id"]
        if self.fleet.lost_answers:
            self.fleet.lost_answers -= 1
            raise _CutError
        return self._data(task, status=202)

    def _list(self, query):
        tasks = list(reversed(self.fleet.tasks.values()))
        begin, size = int(query.get("cursor", 0)), int(query.get("limit", 50))
        more = begin + size < len(tasks)
        page = {"items": tasks[begin : begin + size], "total": len(tasks), "limit": size, "offset": begin}
        self._data(page | {"has_more": more, "next_cursor": str(begin + size) if more else None})

    def _log_page(self, task_id, query):
        size = min(int(query["limit"]), 2)
        entries = [entry for entry in self.fleet.logs[task_id] if entry["line"] > int(query["after"])]
        next_after = entries[:size][-1]["line"] if entries else int(query["after"])
        self._data({"items": entries[:size], "next_after": next_after, "has_more": len(entries) > size})

    def _stream(self, name, events):
        cuts = self.fleet.cuts[name]
        cut = cuts.popleft() if cuts else None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(": keep-alive\n\n")
        for place, (kind, number, data) in enumerate(events):
            if place == cut:
                self._cut(name)
            identity = "" if number is None else f"id: {number}\n"
            self._chunk(f"{identity}event: {kind}\ndata: {json.dumps(data)}\n\n")
        if self.fleet.hold:
            self.fleet.held.append(name)
            self.fleet.reached.set()
            self.fleet.go_on.wait(DEADLINE_SECONDS)
        self._chunk("event: end\ndata: {}\n\n")
        self._chunk("")

    def _cut(self, name):
        if self.fleet.hold:
            self.fleet.held.append(name)
            self.fleet.reached.set()
            self.fleet.stopped.wait(DEADLINE_SECONDS)
        raise _CutError

    def _chunk(self, text):
        content = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def _data(self, data, status=200):
        self._send(status, {"success": True, "data": data})

    def _refuse(self, status, code, message, **details):
        self._send(status, error_body(code, message, **details))

    def _send(self, status, body, headers=()):
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _abort(self):
        """Resets the connection, as a server that is killed does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def error_body(code, message, **details):
    error = {"code": code, "message": message, "details": details}
    return {"success": False, "error": error, "timestamp": NOW.format(0)}
