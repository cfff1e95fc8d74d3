"""The command line against a double of the server: in this process, or as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from click.testing import CliRunner, Result

from codefleet_cli.main import cli
from tests.integration.cli.fleet_double import API_KEY, FleetDouble


@pytest.fixture
def fleet():
    double = FleetDouble()
    double.start()
    yield double
    double.go_on.set()
    double.stop()


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """Nothing of the machine's own configuration is seen."""
    for name in ("CODEFLEET_URL", "CODEFLEET_API_KEY", "CODEFLEET_DATA_DIR", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class CommandLine:
    def __init__(self, fleet: FleetDouble) -> None:
        self.fleet = fleet

    @property
    def environ(self) -> dict[str, str]:
        return {"CODEFLEET_URL": self.fleet.url, "CODEFLEET_API_KEY": API_KEY}

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        result = CliRunner().invoke(cli, arguments, input=stdin, env=self.environ | environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def json(self, *arguments: str) -> object:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        argv: Sequence[str] = [sys.executable, "-m", "codefleet_cli", *arguments]
        return subprocess.Popen(argv, env=os.environ | self.environ, text=True, **options)


@pytest.fixture
def codefleet(fleet):
    return CommandLine(fleet)
