"""Serve functions as an ASGI application."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from stepwell._client import Client
from stepwell._endpoint import Endpoint, Request, Response
from stepwell._function import Function

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: The ASGI calling convention.
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Requests above this many bytes are refused with 413. Servers send at most 4 MiB and fetchable state beyond (protocol 10.6);
#: the rest is room for servers with other limits.
_BODY_LIMIT = 32 * 1024 * 1024


def asgi(client: Client, functions: Sequence[Function] | None = None, *, path: str = "/api/inngest") -> AsgiApp:
    """Make an ASGI app that answers the Stepwell server on `path`, and 404 elsewhere.

    `functions` are those declared on the client if left out. Serve it alone, mount it at `path`, or pass requests for
    `path` on to it. ConfigError when calls must be signed and there is no signing key.
    """
    endpoint = Endpoint(client, client.functions if functions is None else functions, "asgi")
    wanted = "/" + path.strip("/")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"the Stepwell endpoint serves http, not {scope['type']}")
        elif not _is_here(scope, wanted):
            await _respond(send, Response(404, {"content-type": "application/json"}, b'{"message":"Not found"}'))
        else:
            body = await _read(receive)
            if body is None:
                await _respond(send, Response(413, {"content-type": "application/json"}, b'{"message":"Too large"}'))
            else:
                await _respond(send, await endpoint.handle(_to_request(scope, body)))

    return app


def _is_here(scope: Scope, wanted: str) -> bool:
    """Mounted apps may see the whole path or only the part below the mount; both name this endpoint."""
    path, root = scope["path"].rstrip("/"), scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return wanted in (path or "/", below or "/") or (wanted == root and not below)


def _to_request(scope: Scope, body: bytes) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host") or "{}:{}".format(*(scope.get("server") or ("localhost", 80)))
    path, root = scope["path"], scope.get("root_path", "")
    full = path if path.startswith(root) else root + path
    return Request(
        method=scope["method"],
        url=f"{scope.get('scheme', 'http')}://{host}{full}",
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        body=body,
    )


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when it is too large or the client went away."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > _BODY_LIMIT:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _respond(send: Send, response: Response) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _live(receive: Receive, send: Send) -> None:
    """Start and stop with the server; nothing needs preparing."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
