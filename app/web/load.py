"""How much of requests the web process holds at once (overload: bounded memory, whoever sends).

Counted are the octets of bodies, from the moment they arrive until the request is answered. What would go beyond the bound
is refused with 503 `overloaded` and `Retry-After` while it is being read: nothing of it was stored. Announced sizes count for
nothing, so that a promise of ten megabytes that drips in holds only what came.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self

from app.domain.errors import Outside
from app.domain.limits import MIB

#: Octets of bodies in one process; an event takes about four times as much while it is read and stored.
MOST_OCTETS = 64 * MIB


class Overloaded(Outside):
    """Stepwell is reading as much as it can just now. Please try again in a moment."""

    def __init__(self) -> None:
        """It may work very soon."""
        super().__init__(retryable=True, code="overloaded")


class Load:
    """The bodies of one process. `most` is in octets."""

    def __init__(self, most: int = MOST_OCTETS) -> None:
        self.most = most
        self.octets = 0

    def body(self) -> "Body":
        """The part of one request; use it as a context."""
        return Body(self)

    def bounded(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """An ASGI application whose requests' bodies are counted here."""

        async def handle(
            scope: MutableMapping[str, Any],
            receive: Callable[[], Awaitable[Any]],
            send: Callable[[Any], Awaitable[None]],
        ) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            with self.body() as body:

                async def receive_counted() -> Any:
                    message = await receive()
                    body.grows(len(message.get("body", b"")))
                    return message

                await app(scope, receive_counted, send)

        return handle


class Body:
    """One request's octets, given back at the end of the `with`."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._octets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._load.octets -= self._octets
        self._octets = 0

    def grows(self, octets: int) -> None:
        """More of the body is here. Raises `Overloaded` when it is too much."""
        if octets and self._load.octets + octets > self._load.most:
            raise Overloaded
        self._load.octets += octets
        self._octets += octets
