"""Who may import whom: the walls between the parts, checked by reading every import."""

import ast
from collections.abc import Iterator
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


def test_services_do_not_import_each_other():
    def service(name: str) -> str:
        return ".".join(name.split(".")[:2])

    assert not [
        (module, name)
        for module, name in all_imports("services")
        if within(name, "services") and name != "services" and service(name) != service(module)
    ]


def test_the_domain_imports_nothing_of_ours_but_itself_and_the_errors():
    assert not [
        (module, name)
        for module, name in all_imports("codefleet")
        if within(module, "codefleet.domain")
        and is_ours(name)
        and not within(name, "codefleet.domain", "codefleet.errors")
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


def test_the_command_line_imports_no_server_code():
    assert not [
        (module, name) for module, name in all_imports("codefleet_cli") if within(name, "codefleet", "services")
    ]


@pytest.mark.parametrize("package", ["codefleet", "codefleet_testkit"])
def test_libraries_do_not_import_services(package: str):
    assert not [(module, name) for module, name in all_imports(package) if within(name, "services")]


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
