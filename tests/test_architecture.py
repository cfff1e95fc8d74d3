"""Who may import whom: the walls between the parts, checked by reading every import."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "codefleet": ROOT / "libs" / "codefleet",
    "codefleet_cli": ROOT / "libs" / "codefleet_cli",
    "codefleet_testkit": ROOT / "libs" / "codefleet_testkit",
    "services": ROOT / "services",
}


def module_of(file: Path, package: str) -> str:
    parts = file.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module and every name in it that is imported anywhere in `source`, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                above = parents[: len(parents) - node.level + is_package]
                base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def all_imports(package: str) -> list[tuple[str, str]]:
    """Every (importing module, imported name) of a package."""
    found = []
    for file in sorted(PACKAGES[package].rglob("*.py")):
        module = module_of(file, package)
        names = imports(file.read_text(), module, is_package=file.name == "__init__.py")
        found += [(module, name) for name in names]
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def is_ours(name: str) -> bool:
    return within(name, *PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_was_found(package: str):
    assert all_imports(package)


def allowed_imports() -> dict[str, set[str]]:
    """What ARCHITECTURE.md lets each package import, beside itself."""
    rows = re.findall(
        r"^\| `(?:libs/)?([\w/]+)` \|.*\| ([^|]*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    return {
        folder.replace("/", "."): {f"codefleet.{name}" for name in re.findall(r"`(\w+)`", allowed)}
        for folder, allowed in rows
    }


def row_of(name: str, rows: Iterable[str]) -> str:
    """The row of the table that a module falls under: that of the innermost package."""
    return max((row for row in rows if within(name, row)), key=len)


def breaches(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    allowed = allowed_imports()
    return [
        (module, name)
        for module, name in found
        # The bare package has nothing in it; what is taken from it stands beside it with its name.
        if is_ours(name)
        and name != "codefleet"
        and row_of(name, allowed) != (row := row_of(module, allowed))
        and not within(name, *allowed[row])
    ]


def test_every_folder_is_in_the_table():
    folders = {f"codefleet.{path.parent.name}" for path in PACKAGES["codefleet"].glob("*/__init__.py")}
    assert set(allowed_imports()) == folders | set(PACKAGES)


def test_the_table_allows_nothing_that_is_not_there():
    modules = {module_of(file, "codefleet") for file in PACKAGES["codefleet"].rglob("*.py")}
    assert set().union(*allowed_imports().values()) <= modules


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_imports_only_what_the_table_allows(package: str):
    assert breaches(all_imports(package)) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("codefleet.domain.states", "codefleet.clock.utc_now"),
        ("codefleet.storage.tasks", "codefleet.queueing"),
        ("codefleet.service", "codefleet.execution.worker"),
        ("codefleet_cli.main", "codefleet.errors"),
        ("codefleet.errors", "services.api"),
        ("services.api.app", "codefleet.embedded.stack"),
    ],
)
def test_a_breach_of_the_table_is_found(module: str, name: str):
    assert breaches([(module, name)]) == [(module, name)]


def test_services_do_not_import_each_other():
    def service(name: str) -> str:
        return ".".join(name.split(".")[:2])

    assert not [
        (module, name)
        for module, name in all_imports("services")
        if within(name, "services") and name != "services" and service(name) != service(module)
    ]


def test_the_domain_does_no_input_or_output():
    drivers = ("asyncio", "motor", "pymongo", "bson", "beanie", "redis", "dramatiq", "httpx", "socket", "subprocess")
    assert not [
        (module, name)
        for module, name in all_imports("codefleet")
        if within(module, "codefleet.domain") and within(name, *drivers)
    ]


def test_motor_is_imported_in_one_module_only():
    importing = {module for package in PACKAGES for module, name in all_imports(package) if within(name, "motor")}
    assert importing == {"codefleet.storage.mongo"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b as c", "a.b"),
        ("from a import b", "a.b"),
        ("from . import b", "services.api.b"),
        ("from ..monitor import b", "services.monitor.b"),
        ("def f():\n    import motor.core", "motor.core"),
        ("import importlib\nimportlib.import_module('services.monitor')", "services.monitor"),
    ],
)
def test_no_way_of_importing_is_overlooked(source: str, found: str):
    assert found in set(imports(source, "services.api.app"))
