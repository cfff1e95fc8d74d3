"""GET /queues, /workers, /health, /metrics."""

from codefleet.clock import in_seconds, utc_now
from codefleet.domain.queues import Executor, Queue
from codefleet.domain.states import State
from codefleet.domain.workers import Worker, WorkerState
from codefleet.queue_figures import read_queues
from codefleet.service import Stores
from codefleet.storage.leadership import LeadershipRepository
from tests.support.tasks import make_task, put


async def register(stores: Stores, worker_id: str, *queues: Queue, state: WorkerState = WorkerState.ONLINE) -> None:
    worker = Worker(
        worker_id=worker_id,
        executor="claude",
        queues=list(queues),
        hostname="testhost",
        pid=1,
        slots=3,
        state=state,
        started_at=utc_now(),
    )
    await stores.workers.register(worker)


async def test_queues_show_what_waits_what_runs_and_who_serves(alice, stores):
    await put(stores)
    await put(stores)
    await put(stores, executor=Executor.CURSOR)
    running = make_task(executor=Executor.CLAUDE, state=State.RUNNING, worker_id="w1", lease_renewed_at=utc_now())
    await stores.tasks.insert(running)
    await register(stores, "w1", Queue.CLAUDE_EXECUTION, Queue.DEFAULT)
    await register(stores, "w2", Queue.CURSOR_EXECUTION, Queue.DEFAULT)
    await register(stores, "w3", Queue.DEFAULT, state=WorkerState.DRAINING)
    data = (await alice.get("/queues")).json()["data"]
    queues = {queue["name"]: queue for queue in data["items"]}
    assert data["degraded"] is False
    assert list(queues) == list(Queue)
    assert {name: queue["waiting"] for name, queue in queues.items()} == {
        "default": 2,
        "claude_execution": 0,
        "cursor_execution": 1,
    }
    assert {name: queue["running"] for name, queue in queues.items()} == {
        "default": 0,
        "claude_execution": 1,
        "cursor_execution": 0,
    }
    assert (queues["default"]["workers"], queues["default"]["slots"]) == (2, 6)
    assert queues["default"]["oldest_waiting_seconds"] >= 0
    assert queues["claude_execution"]["oldest_waiting_seconds"] is None


async def test_a_queues_age_is_the_one_that_the_monitor_reads(alice, stores):
    await put(stores, created_at=in_seconds(-900), scheduled_at=in_seconds(-20))
    await put(stores, created_at=in_seconds(-800), state=State.RETRY, due_at=in_seconds(-40))
    data = (await alice.get("/queues")).json()["data"]
    told = {queue["name"]: queue["oldest_waiting_seconds"] for queue in data["items"]}
    read = await read_queues(stores.tasks, stores.ready)
    assert 40 <= told["default"] <= (read[Queue.DEFAULT].oldest_waiting_seconds or 0.0) < 60


async def test_workers_show_their_state_and_what_they_run(monitor, stores):
    await register(stores, "w1", Queue.DEFAULT)
    await register(stores, "w2", Queue.DEFAULT, state=WorkerState.LOST)
    for _ in range(2):
        await stores.tasks.insert(make_task(state=State.RUNNING, worker_id="w1", lease_renewed_at=utc_now()))
    items = {item["id"]: item for item in (await monitor.get("/workers")).json()["data"]["items"]}
    assert (items["w1"]["running"], items["w2"]["running"]) == (2, 0)
    assert (items["w1"]["state"], items["w2"]["state"]) == ("online", "lost")
    expected = {"id", "executor", "state", "slots", "running", "hostname", "pid", "started_at", "heartbeat_at"}
    assert set(items["w1"]) == expected


async def test_health_says_what_is_missing_and_what_to_do(alice):
    data = (await alice.get("/health")).json()["data"]
    assert data["status"] == "degraded"
    assert data["uptime_seconds"] > 0
    assert data["version"]
    assert (data["checks"]["mongo"]["status"], data["checks"]["redis"]["status"]) == ("ok", "ok")
    for missing in ("scheduler", "workers"):
        assert data["checks"][missing]["reason"]
        assert data["checks"][missing]["advice"]


async def test_health_is_ok_when_everything_is_there(alice, stores):
    await LeadershipRepository(stores.mongo, "scheduler").hold("test", lease_seconds=30)
    await register(stores, "w1", Queue.DEFAULT)
    data = (await alice.get("/health")).json()["data"]
    assert (data["status"], data["workers_online"]) == ("ok", 1)


async def test_probes_say_little_and_need_no_key(anonymous, url):
    for path in ("/health/live", f"{url}/health/live"):
        assert (await anonymous.get(path)).json() == {"status": "alive"}
    for path in ("/health/ready", f"{url}/health/ready"):
        assert (await anonymous.get(path)).json() == {"status": "ready"}


async def test_a_closing_process_is_not_ready(anonymous, api):
    api.closing.set()
    response = await anonymous.get("/health/ready")
    assert (response.status_code, response.json()) == (503, {"status": "unavailable"})


async def test_metrics_count_by_route_method_and_status(admin, alice, url):
    for _ in range(2):
        await alice.post("/tasks", json={"type": "diagnostic"})
    await alice.post("/tasks", json={})
    await alice.get("/nonsense")
    await alice.request("BREW", "/tasks")
    text = (await admin.get(f"{url}/metrics")).text
    for line in (
        'codefleet_http_requests_total{method="POST",route="/api/v1/tasks",status_class="2xx"} 2.0',
        'codefleet_http_requests_total{method="POST",route="/api/v1/tasks",status_class="4xx"} 1.0',
        'codefleet_http_requests_total{method="GET",route="unknown",status_class="4xx"} 1.0',
        'codefleet_http_requests_total{method="OTHER",route="unknown",status_class="4xx"} 1.0',
        'codefleet_http_request_seconds_count{method="POST",route="/api/v1/tasks"} 3.0',
        "codefleet_tasks_submitted_total 2.0",
        "codefleet_stream_subscribers 0.0",
    ):
        assert line in text.splitlines(), line
    assert text == (await admin.get("/metrics")).text or "codefleet_http_requests_in_flight 1.0" in text
