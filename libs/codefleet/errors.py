"""Every error codefleet raises on purpose.

    CodefleetError                     500  INTERNAL_ERROR
    ├── MalformedRequestError          400  MALFORMED_REQUEST
    ├── UnauthenticatedError           401  UNAUTHENTICATED
    ├── ForbiddenError                 403  FORBIDDEN
    ├── NotFoundError                  404  NOT_FOUND
    ├── ConflictError                  409  CONFLICT
    │   └── IllegalTransitionError     409  ILLEGAL_TRANSITION
    ├── PayloadTooLargeError           413  PAYLOAD_TOO_LARGE
    ├── InvalidFieldError              422  VALIDATION_ERROR
    ├── UnavailableError               503  UNAVAILABLE
    └── ConfigurationError             500  CONFIGURATION_ERROR

An error's class says which HTTP status and code a client sees; its message is written for that client.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class CodefleetError(Exception):
    """The root: `message` is for people, `details` for programs; neither ever carries a secret."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details


class MalformedRequestError(CodefleetError):
    """The request could not be read at all (not JSON, broken encoding)."""

    status = 400
    code = "MALFORMED_REQUEST"


class UnauthenticatedError(CodefleetError):
    status = 401
    code = "UNAUTHENTICATED"


class ForbiddenError(CodefleetError):
    status = 403
    code = "FORBIDDEN"


class NotFoundError(CodefleetError):
    status = 404
    code = "NOT_FOUND"


class ConflictError(CodefleetError):
    status = 409
    code = "CONFLICT"


class IllegalTransitionError(ConflictError):
    """A move that the state table does not have; `details` names both states."""

    code = "ILLEGAL_TRANSITION"


class PayloadTooLargeError(CodefleetError):
    status = 413
    code = "PAYLOAD_TOO_LARGE"


class InvalidFieldError(CodefleetError):
    """A value that was read but is not acceptable; `details` has `field` and `reason`."""

    status = 422
    code = "VALIDATION_ERROR"

    def __init__(self, field: str, reason: str, **details: Any) -> None:
        super().__init__(f"{field}: {reason}" if field else reason, field=field, reason=reason, **details)


class UnavailableError(CodefleetError):
    """A store is away; the same request may succeed after `retry_after_seconds`."""

    status = 503
    code = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_seconds: int = 2) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class ConfigurationError(CodefleetError):
    """A setting that is missing or wrong; the message names the key, what was expected and what was got."""

    code = "CONFIGURATION_ERROR"
