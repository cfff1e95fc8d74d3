from pathlib import Path

import pytest

from codefleet.paths import PathNotAllowedError, check_as_seen_here, check_lexically, check_really

ROOTS = [Path("/srv/a"), Path("/data/work")]


@pytest.mark.parametrize("path", ["/srv/a", "/srv/a/", "/srv/a/b/c", "/srv/a/./b", "/data/work/x", "/srv/a/..hidden"])
def test_paths_under_a_root_are_accepted(path: str):
    assert check_lexically(path, ROOTS, field="f") == Path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/ab",
        "/srv/ab/c",
        "/srv",
        "/",
        "/srv/a/../b",
        "/srv/a/../a/x",
        "/srv/a/b/../../../etc",
        "a",
        "./srv/a",
        "",
        ".",
        "~/x",
        "//srv/a/x",
        "/SRV/a",
        "/srv/a\0/x",
        "\0",
    ],
)
def test_everything_else_is_refused_naming_the_field(path: str):
    for check in (check_as_seen_here, check_lexically, check_really):
        with pytest.raises(PathNotAllowedError) as refused:
            check(path, ROOTS, field="work_directory")
        assert refused.value.details["field"] == "work_directory"


def test_without_roots_no_path_is_allowed():
    with pytest.raises(PathNotAllowedError):
        check_lexically("/srv/a", [], field="f")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inside").mkdir(parents=True)
    (tmp_path / "root-twin").mkdir()
    (tmp_path / "outside").mkdir()
    return tmp_path / "root"


def test_a_link_that_stays_inside_is_resolved(root: Path):
    (root / "link").symlink_to(root / "inside")
    assert check_really(str(root / "link"), [root], field="f") == root / "inside"


@pytest.mark.parametrize("target", ["../outside", "../root-twin", "/", "/etc/passwd"])
def test_a_link_that_leaves_the_root_is_refused(root: Path, target: str):
    (root / "link").symlink_to(target)
    for path in (root / "link", root / "link" / "below", root / "inside" / "new"):
        if path.parent.name == "inside":
            assert check_really(str(path), [root], field="f") == path
            continue
        with pytest.raises(PathNotAllowedError):
            check_really(str(path), [root], field="f")


def test_a_root_that_is_itself_a_link_works(root: Path, tmp_path: Path):
    (tmp_path / "alias").symlink_to(root)
    alias = tmp_path / "alias"
    assert check_really(str(alias / "inside"), [alias], field="f") == root / "inside"


def test_links_in_a_circle_are_refused(root: Path):
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    with pytest.raises(PathNotAllowedError):
        check_really(str(root / "one" / "x"), [root], field="f")


def test_a_path_that_does_not_exist_yet_is_judged_by_where_it_would_be(root: Path):
    assert check_really(str(root / "new" / "deep"), [root], field="f") == root / "new" / "deep"


def test_a_directory_that_this_machine_does_not_have_is_left_to_the_executor(tmp_path):
    path = str(tmp_path / "elsewhere")
    assert str(check_as_seen_here(path, [tmp_path], field="work_directory")) == path


def test_what_this_machine_can_see_is_refused_at_once(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    (root / "file").touch()
    for name in ("link", "loop", "file"):
        with pytest.raises(PathNotAllowedError):
            check_as_seen_here(str(root / name), [root], field="work_directory")
