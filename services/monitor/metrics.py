"""A reading as Prometheus metrics."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from services.monitor.collector import Reading


def exposition(reading: Reading) -> bytes:
    """The reading in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Families(reading))
    return generate_latest(registry)


class _Families(PrometheusCollector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        reading = self._reading
        queues = reading.queues.items()
        yield _gauge(
            "codefleet_queue_ready_tasks",
            "Tasks in the ready index; absent while Redis is away",
            "queue",
            ((queue, float(values.ready)) for queue, values in queues if values.ready is not None),
        )
        yield _gauge(
            "codefleet_queue_running_tasks",
            "Tasks that a worker holds",
            "queue",
            ((queue, float(values.running)) for queue, values in queues),
        )
        yield _gauge(
            "codefleet_queue_oldest_waiting_seconds",
            "How long the task has been able to start that has waited longest; 0 if none waits",
            "queue",
            ((queue, values.oldest_waiting_seconds or 0.0) for queue, values in queues),
        )
        yield _gauge(
            "codefleet_tasks",
            "Tasks by state",
            "state",
            ((state, float(count)) for state, count in reading.states.items()),
        )
        yield from self._workers()

    def _workers(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("codefleet_workers", "Workers by executor and state", labels=["executor", "state"])
        slots = GaugeMetricFamily("codefleet_worker_slots", "Slots of a worker", labels=["worker", "executor"])
        busy = GaugeMetricFamily("codefleet_worker_busy_slots", "Slots in use", labels=["worker", "executor"])
        counts: dict[tuple[str, str], int] = {}
        for worker in self._reading.workers:
            key = (worker.executor, worker.state)
            counts[key] = counts.get(key, 0) + 1
            labels = [worker.worker_id, worker.executor]
            slots.add_metric(labels, worker.slots)
            busy.add_metric(labels, self._reading.busy_slots.get(worker.worker_id, 0))
        for (executor, state), count in counts.items():
            workers.add_metric([executor, state], count)
        yield from (workers, slots, busy)


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values:
        family.add_metric([value], number)
    return family
