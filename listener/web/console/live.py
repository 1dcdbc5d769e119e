"""Server-sent events: a page hears that something changed, and fetches itself again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from listener.web.console.layout import CONSOLE_HEADERS
from listener.web.console.sessions import Visitor
from pipeline.errors import SmearlinkError

LOOK_EVERY_S = 0.5
SIGN_OF_LIFE_LOOKS = 30
MOST_STREAMS = 24
"""Each holds a connection; the rest of the service needs some, too."""
LONGEST_LOOKS = 3600
"""Then the browser connects again, and whoever signed out meanwhile is refused."""


class LiveEvents:
    """`/events`: one line a change."""

    def __init__(self, changed_at: Callable[[], float]) -> None:
        self._changed_at = changed_at
        self._is_closing = False
        self._open = 0

    def close(self) -> None:
        """End all streams, so that a stop need not wait for them."""
        self._is_closing = True

    async def stream(self, request: Request, _visitor: Visitor) -> Response:
        """Events until the page goes away; 204 tells a browser not to come back for more."""
        if self._is_closing or self._open >= MOST_STREAMS:
            return Response(status_code=503, headers={**CONSOLE_HEADERS, "Retry-After": "30"})
        headers = {**CONSOLE_HEADERS, "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(
            self._lines(request), media_type="text/event-stream", headers=headers
        )

    async def _lines(self, request: Request) -> AsyncIterator[str]:
        self._open += 1
        try:
            yield "retry: 3000\n\n"
            # What changed between the page and this stream is told at once.
            before = _since(request) or await self._look(0.0)
            for look in range(LONGEST_LOOKS):
                if self._is_closing or await request.is_disconnected():
                    return
                await asyncio.sleep(LOOK_EVERY_S)
                now = await self._look(before)
                if now != before:
                    before = now
                    yield f"event: changed\ndata: {now}\n\n"
                elif look % SIGN_OF_LIFE_LOOKS == 0:
                    yield ": still here\n\n"
        finally:
            self._open -= 1

    async def _look(self, before: float) -> float:
        try:
            return await run_in_threadpool(self._changed_at)
        except SmearlinkError:
            return before


def _since(request: Request) -> float:
    """The moment that the page shows; 0 where it does not say."""
    try:
        return max(0.0, float(request.query_params.get("since", "0")))
    except ValueError:
        return 0.0
