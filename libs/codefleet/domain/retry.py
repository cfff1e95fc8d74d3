"""What went wrong with a run, whether it is worth another try, and when.

Error classes are the words a user sees in `error.class`.
"""

import random
from enum import StrEnum


class ErrorClass(StrEnum):
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    TEMPORARY = "temporary"
    SERVICE_UNAVAILABLE = "service_unavailable"
    WORKER_LOST = "worker_lost"

    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    VALIDATION = "validation"
    SYNTAX = "syntax"
    CONFIGURATION = "configuration"

    SECURITY = "security"
    DATA_CORRUPTION = "data_corruption"
    SYSTEM_FAILURE = "system_failure"


RETRIABLE = frozenset(
    {
        ErrorClass.CONNECTION,
        ErrorClass.TIMEOUT,
        ErrorClass.RATE_LIMIT,
        ErrorClass.TEMPORARY,
        ErrorClass.SERVICE_UNAVAILABLE,
        ErrorClass.WORKER_LOST,
    },
)

MAX_BACKOFF_SECONDS = 600.0
MAX_LOSSES = 3
"""A task whose worker was lost this often is taken for the cause (poison) and not granted again."""


def may_retry(error_class: ErrorClass, *, retry_count: int, max_retries: int) -> bool:
    return error_class in RETRIABLE and retry_count < max_retries


def backoff_seconds(retry_count: int, *, base_seconds: float, jitter: float | None = None) -> float:
    """How long to wait before retry number `retry_count + 1`.

    Exponential from `base_seconds`, at most MAX_BACKOFF_SECONDS, then shortened by up to a fifth so that tasks that
    failed together do not come back together.

    Args:
        jitter: where in that fifth, 0 to 1; drawn at random if not given.
    """
    share = random.random() if jitter is None else jitter  # noqa: S311 - spreads load, guards nothing
    # 2**30 s is far above the cap; the bound keeps a huge count from overflowing.
    delay = min(MAX_BACKOFF_SECONDS, base_seconds * 2 ** min(retry_count, 30))
    return float(delay * (1 - 0.2 * share))
