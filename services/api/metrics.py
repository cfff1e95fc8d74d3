"""What this process counts, for Prometheus: rate, errors and duration of each route, and what is open now."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "codefleet_http_requests",
            "Requests answered",
            ["method", "route", "status_class"],
            registry=self._registry,
        )
        self._duration = Histogram(
            "codefleet_http_request_seconds",
            "Time from a request's arrival to the end of its answer; streams are not observed",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge("codefleet_http_requests_in_flight", "Requests being answered", registry=self._registry)
        self.submitted = Counter("codefleet_tasks_submitted", "Tasks stored", registry=self._registry)
        self.replayed = Counter(
            "codefleet_submits_replayed",
            "Submits answered with the task that their idempotency key had made before",
            registry=self._registry,
        )
        self.auth_failures = Counter(
            "codefleet_authentication_failures",
            "Requests refused for want of a valid key",
            ["reason"],
            registry=self._registry,
        )
        self.subscribers = Gauge(
            "codefleet_stream_subscribers",
            "Open event and log streams and long polls",
            registry=self._registry,
        )
        # Labels are few: routes are templates, and methods are limited to those of HTTP.
        self._counter = lru_cache(1024)(self._requests.labels)
        self._timer = lru_cache(1024)(self._duration.labels)

    def observe(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """Counts a request; `seconds` is None for a stream, whose length says nothing about us."""
        self._counter(method, route, f"{status // 100}xx").inc()
        if seconds is not None:
            self._timer(method, route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
