"""Which directories tasks may work in. Lexical and real checks; what is checked is what is used."""

import os
from collections.abc import Iterable
from pathlib import Path

from codefleet.errors import InvalidFieldError


class PathNotAllowedError(InvalidFieldError):
    """A path outside every work root, or one that cannot be used at all."""


def check_lexically(path: str, roots: Iterable[Path], *, field: str) -> Path:
    """The path without looking at the file system, which may be another machine's.

    Raises:
        PathNotAllowedError: it is not absolute, climbs with `..`, has a NUL, or lies under none of `roots`.
    """
    candidate = Path(path)
    if "\0" in path:
        raise PathNotAllowedError(field, "a path cannot contain a NUL character")
    if not candidate.is_absolute():
        raise PathNotAllowedError(field, f"expected an absolute path, got {path!r}")
    if ".." in candidate.parts:
        raise PathNotAllowedError(field, "a path must not contain '..'")
    return _under_a_root(candidate, roots, field)


def check_as_seen_here(path: str, roots: Iterable[Path], *, field: str) -> Path:
    """The path as given, refused as far as this machine can tell: the directory may exist on the executor's only.

    Raises:
        PathNotAllowedError: as `check_lexically`; or it exists here and is not a directory or leads out of every root.
    """
    roots = list(roots)
    candidate = check_lexically(path, roots, field=field)
    if os.path.lexists(candidate):
        real = check_really(path, roots, field=field)
        if real.exists() and not real.is_dir():
            raise PathNotAllowedError(field, f"{path!r} is not a directory")
    return candidate


def check_really(path: str, roots: Iterable[Path], *, field: str) -> Path:
    """The path with every symbolic link resolved, which must lie under a (resolved) root.

    Raises:
        PathNotAllowedError: as `check_lexically`, or the resolved path leaves every root.
    """
    roots = list(roots)
    candidate = check_lexically(path, roots, field=field)
    try:
        resolved = candidate.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PathNotAllowedError(field, f"{path!r} cannot be resolved") from error
    return _under_a_root(resolved, [root.resolve() for root in roots], field)


def _under_a_root(path: Path, roots: Iterable[Path], field: str) -> Path:
    roots = list(roots)
    if any(path.is_relative_to(root) for root in roots):
        return path
    allowed = ", ".join(str(root) for root in roots) or "none"
    raise PathNotAllowedError(field, f"{str(path)!r} lies outside the work roots ({allowed})")
