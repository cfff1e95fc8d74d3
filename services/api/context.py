"""What every request handler works with."""

import asyncio
from typing import Any

import msgspec
from litestar.connection import Request
from litestar.datastructures import State

from codefleet.domain.identity import Identity
from codefleet.service import Stores
from codefleet.settings import Settings
from services.api.hub import Hub
from services.api.metrics import Metrics
from services.api.ready_feed import ReadyFeed
from services.api.security import Authenticator

ApiRequest = Request[Identity, Any, State]
"""A request whose key has been checked; `request.user` is who asks."""


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of this process.

    Args:
        started_at: monotonic seconds.
        closing: set when the process is to end; whoever waits or streams ends then.
    """

    settings: Settings
    stores: Stores
    authenticator: Authenticator
    feed: ReadyFeed
    hub: Hub
    metrics: Metrics
    started_at: float
    closing: asyncio.Event


def api_of(request: ApiRequest) -> Api:
    api: Api = request.app.state["api"]
    return api
