"""The sample repository of the demo, and what its two tasks are."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import msgspec

from codefleet.errors import ConfigurationError

_FILES = {
    "prices.py": '''\
def total(prices, discount=0):
    """What a basket costs; the discount is in percent."""
    return round(sum(prices) * (100 - discount) / 100, 2)
''',
    "README.md": "# shop\n\nPrices of a small shop.\n",
    ".gitignore": "__pycache__/\n",
}
_TEST = """\
import unittest

from prices import total


class TotalTest(unittest.TestCase):
    def test_adds_up(self):
        self.assertEqual(total([1.50, 2.25]), 3.75)

    def test_takes_off_the_discount(self):
        self.assertEqual(total([10, 10], discount=25), 15)
"""
_README = """\
# shop

Prices of a small shop.

## Usage

    from prices import total

    total([1.50, 2.25])           # 3.75
    total([10, 10], discount=25)  # 15.0
"""
_GIT_IDENTITY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "codefleet demo",
    "GIT_AUTHOR_EMAIL": "demo@example.invalid",
    "GIT_COMMITTER_NAME": "codefleet demo",
    "GIT_COMMITTER_EMAIL": "demo@example.invalid",
}


class DemoTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task of the demo.

    Args:
        options: of `codefleet run`.
        directives: tell the stand-in what to do, see `directives`; a real model has no use for them.
    """

    title: str
    executor: str
    prompt: str
    directives: str
    options: tuple[str, ...] = ()


DEMO_TASKS = (
    DemoTask(
        title="Claude Code writes a test",
        executor="claude",
        prompt="Write a unittest for total() into test_prices.py and run it with python3 -m unittest.",
        directives=f'[[write path=test_prices.py text={json.dumps(_TEST)}]] [[run command="python3 -m unittest -v"]]',
        options=("--param", 'allowed_tools=["Bash(python3 -m unittest *)"]'),
    ),
    DemoTask(
        title="Cursor writes the documentation",
        executor="cursor",
        prompt="Add a section Usage with two examples of total() to README.md.",
        directives=f"[[read path=prices.py]] [[write path=README.md text={json.dumps(_README)}]]",
    ),
)


class SampleRepository:
    """A git repository with one commit, which no configuration of the user's reaches.

    Its methods raise ConfigurationError where there is no git.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def create(self) -> None:
        self.directory.mkdir()
        for name, content in _FILES.items():
            (self.directory / name).write_text(content)
        await self._git("init", "--quiet", "--initial-branch=main")
        await self.changes()
        await self.commit("A small shop")

    async def changes(self, *, colour: bool = False) -> str:
        """Everything that differs from the last commit, new files included, as a patch."""
        await self._git("add", "--all")
        return await self._git("diff", "--cached", "--stat", "--patch", f"--color={'always' if colour else 'never'}")

    async def commit(self, message: str) -> None:
        """What `changes` showed."""
        await self._git("commit", "--quiet", "--allow-empty", "--message", message)

    async def _git(self, *arguments: str) -> str:
        if shutil.which("git") is None:
            raise ConfigurationError("git is not installed, and the demo shows changes with it: install git")
        git = await asyncio.create_subprocess_exec(
            *("git", "-C", str(self.directory), *arguments),
            env={"PATH": os.environ["PATH"], **_GIT_IDENTITY},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await git.communicate()
        if git.returncode:
            raise RuntimeError(f"git {arguments[0]}: {errors.decode(errors='replace').strip()}")
        return output.decode(errors="replace")
