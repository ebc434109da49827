"""The headers every answer carries: a request id, what kind of server this is, and what browsers must not do.

Outermost of all layers, so that answers to unknown paths and failed requests carry them too. A header that the
handler has set itself stays (a page that must allow one more origin sends its own policy).
"""

import secrets
from collections.abc import MutableMapping
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.logs import about
from app.web.audience import Audience, audience_of

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""No inline script or style and no other origin (section 14 of the dashboard guide)."""

_FOR_BROWSERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"x-frame-options", b"DENY"),
]
_USAGE = "usage"
_NO_STORE = (b"cache-control", b"no-store")
#: Addresses of assets with a version in them never change; others are asked for again each time.
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")
_ASK_AGAIN = (b"cache-control", b"public, no-cache")


class Headers:
    """Wraps an ASGI application; `is_dev` is told to SDKs, `is_https` makes browsers stay with TLS."""

    def __init__(self, app: ASGIApp, *, is_dev: bool, is_https: bool) -> None:
        """Prepare the lists once."""
        self._app = app
        always = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-inngest-server-kind", b"dev" if is_dev else b"cloud"),
        ]
        if is_https:
            always.append((b"strict-transport-security", b"max-age=31536000"))
        self._machine = [*always, _NO_STORE]
        self._person = [*always, *_FOR_BROWSERS, _NO_STORE]
        self._asset = [*always, *_FOR_BROWSERS, _ASK_AGAIN]
        self._versioned_asset = [*always, *_FOR_BROWSERS, _FOR_EVER]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request an id and its answer the headers."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(12)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        about(request_id=request_id)
        id_header = (b"x-request-id", request_id.encode())

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                _add(message, [id_header, *state.get(_USAGE, ()), *self._headers_for(scope, message["status"])])
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _headers_for(self, scope: Any, status: int) -> list[tuple[bytes, bytes]]:
        path = scope["path"]
        if audience_of(path) is not Audience.PERSON:
            return self._machine
        if not path.startswith("/static/") or status >= 400:
            return self._person
        return self._versioned_asset if scope["query_string"].startswith(b"v=") else self._asset


def tell_usage(scope: Any, headers: list[tuple[bytes, bytes]]) -> None:
    """Have the answer say how much of a limit is left."""
    scope["state"][_USAGE] = headers


def request_id_of(scope: Any) -> str:
    """The id of the request that is being answered, also for logs; empty outside of one."""
    state: MutableMapping[str, Any] = scope.get("state") or {}
    return str(state.get("request_id", ""))


def _add(message: Any, wanted: list[tuple[bytes, bytes]]) -> None:
    present = list(message.get("headers", ()))
    names = {name.lower() for name, _ in present}
    message["headers"] = present + [header for header in wanted if header[0] not in names]
