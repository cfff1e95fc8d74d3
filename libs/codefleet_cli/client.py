"""The API over HTTP, and the one seam at which httpx's errors and the server's become CommandErrors."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec

from codefleet_cli.connection import Server
from codefleet_cli.errors import DroppedError, RefusedError, ServerFailedError, UnexpectedAnswerError, UnreachableError

PREFIX = "/api/v1"
LONG_POLL_SECONDS = 20
_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_PAUSES_SECONDS = (0.2, 0.8)
_LONGEST_PAUSE_SECONDS = 5.0
_GATEWAY = {502, 503, 504}
_ADVICE = {
    401: "set CODEFLEET_API_KEY or use --api-key",
    403: "the API key's role does not allow this",
}


class Api:
    """Requests, each repeated up to twice when the connection breaks or the server is busy.

    Repeating is safe because every request made here is: reads, cancels, and submits under an idempotency key.
    Each method returns the `data` of the answer and raises a CommandError.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = httpx.Client(**client_options(server))

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._repeat("GET", path, params={name: value for name, value in params.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._repeat("POST", path, json=dict(body), headers=headers)

    def _repeat(self, method: str, path: str, **request: Any) -> Any:
        for pause in _PAUSES_SECONDS:
            try:
                return self._send(method, path, **request)
            except DroppedError:
                wait = pause
            except RefusedError as error:
                wait = max(pause, error.retry_after_seconds or 0.0)
                if not error.is_temporary or wait > _LONGEST_PAUSE_SECONDS:
                    raise
            time.sleep(wait)
        return self._send(method, path, **request)

    def _send(self, method: str, path: str, **request: Any) -> Any:
        with translated(self.server.url):
            return unwrap(self._client.request(method, PREFIX + path, **request))


def client_options(server: Server) -> dict[str, Any]:
    """What httpx.Client and httpx.AsyncClient are made with."""
    headers = {"User-Agent": "codefleet-cli"}
    if server.api_key:
        headers["Authorization"] = f"Bearer {server.api_key}"
    return {
        "base_url": server.url,
        "headers": headers,
        "timeout": httpx.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS),
        # A proxy configured for the outside world has no way to this machine's loopback.
        "trust_env": not server.is_local,
    }


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Makes an UnreachableError that names the URL of any failure to get an answer."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UnreachableError(
            f"cannot reach {url} ({error or 'no answer'})",
            advice="is the server running? start one with `codefleet up`, or check CODEFLEET_URL",
        ) from error
    except httpx.TimeoutException as error:
        raise UnreachableError(f"{url} did not answer in time", advice="try again") from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise DroppedError(f"the connection to {url} broke ({error or type(error).__name__})") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise UnreachableError(f"cannot talk to {url} ({error})") from error


def unwrap(response: httpx.Response) -> Any:
    """The `data` of an answer.

    Raises:
        RefusedError: the answer is an error of the API.
        UnexpectedAnswerError: it is not the API's envelope.
    """
    try:
        body = msgspec.json.decode(response.content)
        if response.is_success:
            return body["data"]
        str(body["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        if response.status_code not in _GATEWAY:
            raise UnexpectedAnswerError(
                f"HTTP {response.status_code} without codefleet's envelope from {response.url}",
                advice="check that the URL is codefleet's",
            ) from error
        # A gateway in front of the server answers for it while it is away.
        message = f"HTTP {response.status_code} from {response.url.host}: the server behind it does not answer"
        body = {"success": False, "error": {"code": "UNAVAILABLE", "message": message, "details": {}}}
    kind = ServerFailedError if response.is_server_error else RefusedError
    raise kind(
        response.status_code,
        body,
        advice=_ADVICE.get(response.status_code, ""),
        retry_after_seconds=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
