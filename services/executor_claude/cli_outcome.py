"""What a `result` event of the Claude Code CLI means for its task. Pure."""

import msgspec

from codefleet.domain.outcomes import Failed
from codefleet.domain.retry import ErrorClass
from codefleet.execution.agent_output import AgentEnd, Fields, stopped

_SERVER_ERRORS = 500
_CLIENT_ERRORS = 400


class _Kind(msgspec.Struct, frozen=True):
    error_class: ErrorClass
    code: str
    advice: str = ""


_BY_SUBTYPE = {
    "error_max_turns": _Kind(ErrorClass.CONFIGURATION, "MAX_TURNS_REACHED", "Raise parameters.max_turns"),
    "error_max_budget_usd": _Kind(ErrorClass.CONFIGURATION, "MAX_BUDGET_REACHED", "Raise parameters.max_budget_usd"),
}
_BY_API_ERROR = {
    "billing_error": _Kind(ErrorClass.CONFIGURATION, "API_CREDIT_EXHAUSTED", "Top up the account of the API key"),
    "overloaded": _Kind(ErrorClass.SERVICE_UNAVAILABLE, "API_OVERLOADED"),
}
_CREDENTIALS_REFUSED = _Kind(
    ErrorClass.AUTHENTICATION,
    "API_CREDENTIALS_REFUSED",
    "Check ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN of the executor, and ANTHROPIC_BASE_URL if it is set",
)
_BY_STATUS = {
    401: _CREDENTIALS_REFUSED,
    403: _CREDENTIALS_REFUSED,
    404: _Kind(
        ErrorClass.CONFIGURATION,
        "MODEL_NOT_FOUND",
        "Check parameters.model, and ANTHROPIC_BASE_URL of the executor if it is set",
    ),
    408: _Kind(ErrorClass.TIMEOUT, "API_TIMEOUT"),
    413: _Kind(ErrorClass.VALIDATION, "PROMPT_TOO_LONG", "Ask for less at once"),
    429: _Kind(ErrorClass.RATE_LIMIT, "API_RATE_LIMITED"),
}
_NOT_REACHED = _Kind(
    ErrorClass.CONNECTION,
    "API_CONNECTION_FAILED",
    "Check the executor's network, and ANTHROPIC_BASE_URL if it is set",
)
_API_FAILED = _Kind(ErrorClass.SERVICE_UNAVAILABLE, "API_UNAVAILABLE")
_API_REFUSED = _Kind(ErrorClass.VALIDATION, "API_REFUSED")
_TOO_LONG = _Kind(ErrorClass.VALIDATION, "PROMPT_TOO_LONG", "Ask for less at once")
_NO_SESSION = _Kind(ErrorClass.VALIDATION, "SESSION_NOT_FOUND")
_UNKNOWN = _Kind(ErrorClass.TEMPORARY, "AGENT_FAILED")


def failure_of(result: Fields, end: AgentEnd, *, api_error: str, wait_seconds: float | None) -> Failed | None:
    """Why the run failed; None if it did not.

    Args:
        api_error: the CLI's word for the last error of the API.
        wait_seconds: how long the API last asked to wait.
    """
    reason = result.text("terminal_reason")
    if result.text("subtype") == "success" and not result.is_true("is_error") and reason == "completed":
        return None
    if reason.startswith("aborted"):
        return stopped(end)
    kind = _kind(result, api_error)
    told = kind.error_class in {ErrorClass.RATE_LIMIT, ErrorClass.SERVICE_UNAVAILABLE}
    return Failed(
        error_class=kind.error_class,
        code=kind.code,
        message=_message(result),
        advice=kind.advice,
        exit_code=end.exit.exit_code,
        retry_after_seconds=wait_seconds if told else None,
        result={"session_id": result.text("session_id"), "num_turns": result.count("num_turns")},
    )


def _kind(result: Fields, api_error: str) -> _Kind:
    reason = result.text("terminal_reason")
    if known := _BY_SUBTYPE.get(result.text("subtype")):
        return known
    if reason == "prompt_too_long":
        return _TOO_LONG
    if reason == "api_error":
        return _api_kind(result.count("api_error_status"), api_error)
    if any("No conversation found" in error for error in result.texts("errors")):
        return _NO_SESSION
    return _UNKNOWN


def _api_kind(status: int, api_error: str) -> _Kind:
    if known := _BY_API_ERROR.get(api_error) or _BY_STATUS.get(status):
        return known
    if status >= _SERVER_ERRORS:
        return _API_FAILED
    return _API_REFUSED if status >= _CLIENT_ERRORS else _NOT_REACHED


def _message(result: Fields) -> str:
    said = result.text("result") or "; ".join(result.texts("errors"))
    reason = result.text("terminal_reason") or result.text("subtype") or "no reason given"
    return said or f"The agent did not complete its work: {reason}"
