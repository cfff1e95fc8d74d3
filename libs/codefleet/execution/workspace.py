"""Where a run works: the task's own directory under a work root, or a fresh one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from codefleet.domain.retry import ErrorClass
from codefleet.domain.tasks import Task
from codefleet.execution.drivers import DriverError
from codefleet.paths import PathNotAllowedError, check_really


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """The directories of one run.

    Args:
        scratch_directory: private to the run and gone after it.
    """

    work_directory: Path
    scratch_directory: Path

    def remove_scratch(self) -> None:
        shutil.rmtree(self.scratch_directory, ignore_errors=True)


def prepare_workspace(task: Task, *, data_dir: Path, work_roots: Sequence[Path]) -> Workspace:
    """Makes the directories of a run.

    Raises:
        DriverError: the work directory is outside the roots or is not a directory.
    """
    scratch = data_dir.resolve() / "runs" / f"{task.task_id}.{task.epoch}"
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not task.work_directory:
        own = data_dir.resolve() / "workspaces" / task.task_id
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Workspace(work_directory=own, scratch_directory=scratch)
    try:
        directory = check_really(task.work_directory, work_roots, field="work_directory")
    except PathNotAllowedError as error:
        raise DriverError(ErrorClass.PERMISSION, "WORK_DIRECTORY_NOT_ALLOWED", error.message) from error
    if not directory.is_dir():
        raise DriverError(
            ErrorClass.CONFIGURATION,
            "WORK_DIRECTORY_MISSING",
            f"{task.work_directory} is not a directory on the executor's machine",
            advice="Create it, or submit the task with a directory that exists there",
        )
    return Workspace(work_directory=directory, scratch_directory=scratch)
