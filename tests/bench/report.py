"""Figures, and the table they are written to."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import msgspec

DOCS = Path(__file__).parents[2] / "docs"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured number beside its target and its peer.

    Args:
        id: the row of the quality table (B1 …).
        ratio: ours to the peer's, where there is one in the same run.
    """

    id: str
    what: str
    measured: str
    target: str
    met: bool
    peer: str = ""
    ratio: float | None = None


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def write(figures: list[Figure]) -> str:
    """Writes docs/benchmarks.json and .md; figures of other ids that were measured before stay. Returns the table."""
    path = DOCS / "benchmarks.json"
    kept = msgspec.json.decode(path.read_bytes(), type=_Report).figures if path.exists() else []
    measured = {figure.id for figure in figures}
    merged = sorted([*(old for old in kept if old.id not in measured), *figures], key=lambda f: int(f.id[1:]))
    report = _Report(machine=_machine(), measured_at=datetime.now(UTC).strftime("%Y-%m-%d"), figures=merged)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    text = _markdown(report)
    (DOCS / "benchmarks.md").write_text(text)
    return text


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: str
    measured_at: str
    figures: list[Figure]


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"
    )


def _markdown(report: _Report) -> str:
    lines = [
        "# Benchmarks",
        "",
        f"`make bench` on {report.measured_at}: {report.machine}. mongod, Redis, all services and the load generator",
        "share these cores. Rows that say so have their peer in the same run.",
        "",
        "| # | what | measured | target | met | peer, same run | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in report.figures:
        ratio = "" if f.ratio is None else f"{f.ratio:.2f}"
        lines.append(
            f"| {f.id} | {f.what} | {f.measured} | {f.target} | {'yes' if f.met else 'no'} | {f.peer} | {ratio} |"
        )
    return "\n".join(lines) + "\n"
