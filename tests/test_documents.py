"""The documents tell the truth where a machine can check it."""

import re
from pathlib import Path

import pytest

from codefleet.domain.states import mermaid

ROOT = Path(__file__).parents[1]


def test_the_diagram_of_states_is_the_one_made_from_the_table():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = text.partition("<!-- states:begin -->\n```mermaid\n")[2].partition("\n```\n<!-- states:end -->")[0]
    assert drawn == mermaid()


def test_every_test_that_the_coverage_names_exists():
    text = (ROOT / "docs/coverage.md").read_text()
    named = set(re.findall(r"`((?:unit|integration|e2e|faults|test_)[\w/.]*)`", text))
    assert named
    tests = ROOT / "tests"
    assert not [name for name in named if not (tests / name).exists() and not list(tests.rglob(name))]


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "DECISIONS.md"])
def test_files_that_a_document_names_exist(document: str):
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:libs|services|tests|docs|deploy)/[\w/.]*\w)`", text))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_readme_names_the_targets_that_are_not_met():
    missed = re.findall(r"^\| (B\d+) \|.*\| no \|", (ROOT / "docs/benchmarks.md").read_text(), re.MULTILINE)
    told = next(line for line in (ROOT / "README.md").read_text().splitlines() if "shows as not met" in line)
    assert re.findall(r"\bB\d+\b", told) == missed


def test_every_make_target_that_a_document_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "".join((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    assert set(re.findall(r"make ([a-z]+)", text)) <= targets
