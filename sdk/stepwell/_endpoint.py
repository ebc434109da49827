"""The one URL of an app, apart from any web framework: GET introspects, PUT syncs, POST calls.

Request ──► who signed it? ──► GET _introspect │ PUT _sync │ POST _call ──► Answer ──► headers and signature ──► Response
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stepwell import _answer, _json, _registration, _signature
from stepwell._answer import Answer
from stepwell._async_shell import AsyncShell
from stepwell._call import Call, MalformedCallError, read_call
from stepwell._client import Client
from stepwell._errors import ConfigError, ServerError
from stepwell._function import Function
from stepwell._http import UnreachableError
from stepwell._replay import Replay
from stepwell._step import Context, Step, SyncStep
from stepwell._sync_shell import SyncShell
from stepwell._version import REQUEST_VERSION, SDK_HEADER

_LOG = logging.getLogger("stepwell")


@dataclass(frozen=True)
class Request:
    """An HTTP request. `url` is the full address without query, header names are in lower case."""

    method: str
    url: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return parse_qs(self.query).get(name, [None])[0]


@dataclass(frozen=True)
class Response:
    """An HTTP answer, signed and ready to send."""

    status: int
    headers: dict[str, str]
    body: bytes


class Endpoint:
    """Answers the server's requests for one client's functions."""

    def __init__(self, client: Client, functions: Sequence[Function], framework: str) -> None:
        client.settings.require_signing_key()
        self._client = client
        self._settings = client.settings
        self._framework = framework
        self._functions = list(functions)
        self._by_id: dict[str, Function] = {}
        for function in self._functions:
            for each in (function, function.on_failure):
                if each is None:
                    continue
                if each.full_id in self._by_id:
                    raise ConfigError(f"Two functions have the id {each.id!r}: ids must differ within an app.")
                self._by_id[each.full_id] = each

    async def handle(self, request: Request) -> Response:
        """Answer one request; never raises for what the request holds or user code does."""
        key = _signature.verify(request.headers.get(_signature.HEADER), request.body, self._settings.signing_keys)
        trusted = self._settings.is_dev or key is not None
        match request.method:
            case "GET" if trusted:
                answer = self._introspect(is_authenticated=key is not None)
            case "PUT" if trusted or self._may_sync_unsigned(request):
                answer = await self._sync(request, trusted=trusted)
            case "POST" if trusted:
                answer = await self._post_safely(request)
            case "GET" | "PUT" | "POST":
                return self._refuse_stranger()
            case _:
                answer = Answer(405, _json.encode({"message": "Method not allowed"}))
        return self._finish(answer, key)

    def _introspect(self, *, is_authenticated: bool) -> Answer:
        content = _registration.introspection(
            self._client.app_id, self._functions, self._framework, self._settings, is_authenticated=is_authenticated
        )
        return Answer(200, _json.encode(content))

    def _may_sync_unsigned(self, request: Request) -> bool:
        """Whoever asks, an out-of-band sync only makes the app register with its own server."""
        in_band = self._is_in_band(request)
        return self._settings.allow_unsigned_sync and not in_band and _signature.HEADER not in request.headers

    def _is_in_band(self, request: Request) -> bool:
        return self._settings.allow_in_band_sync and request.headers.get("x-inngest-sync-kind") == "in_band"

    async def _sync(self, request: Request, *, trusted: bool) -> Answer:
        kind = request.headers.get("x-inngest-server-kind")
        if kind is not None and kind != self._settings.kind:
            hint = "set INNGEST_DEV=1" if kind == "dev" else "unset INNGEST_DEV"
            message = f"A server of kind {kind!r} asks, but this app runs in {self._settings.kind!r} mode: {hint}."
            return Answer(400, _json.encode({"code": "server_kind_mismatch", "message": message, "modified": False}))
        if trusted and self._is_in_band(request):
            url = self._public_url(_url_in(request.body) or request.url)
            content = _registration.in_band(self._client.app_id, self._functions, url, self._framework, self._settings)
            return Answer(200, _json.encode(content), {"x-inngest-sync-kind": "in_band"})
        return await self._register(request, kind)

    async def _register(self, request: Request, kind: str | None) -> Answer:
        """Announce the functions to the server and answer as it answered."""
        url = self._public_url(request.url)
        content = _registration.registration(self._client.app_id, self._functions, url, self._framework)
        headers = {"x-inngest-framework": self._framework, "x-inngest-sync-kind": "out_of_band"}
        if kind is not None:
            headers["x-inngest-expected-server-kind"] = kind
        register = partial(self._client._api.register, _json.encode(content), headers, request.parameter("deployId"))
        out_of_band = {"x-inngest-sync-kind": "out_of_band"}
        try:
            reply = await asyncio.get_running_loop().run_in_executor(self._client._requests, register)
        except UnreachableError as error:
            message = f"{self._settings.api_origin} could not be reached to register the app: {error}"
            return Answer(500, _json.encode({"message": message, "modified": False}), out_of_band)
        try:
            said = _json.decode(reply.body)
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}
        heard = said.get("error") or said.get("message")
        if reply.status >= 300:
            told = {"message": heard or f"The server answered with status {reply.status}.", "modified": False}
            return Answer(reply.status, _json.encode(told), out_of_band)
        told = {"message": heard or "Successfully registered", "modified": bool(said.get("modified"))}
        return Answer(200, _json.encode(told), out_of_band)

    async def _post_safely(self, request: Request) -> Answer:
        """Whatever goes wrong in the SDK itself is answered in a way the server understands and tries again."""
        try:
            return await self._post(request)
        except Exception as error:  # noqa: BLE001  the server must hear of it
            _LOG.exception("The SDK failed while it answered a call.")
            return _answer.refusal(500, "InternalError", f"The SDK failed: {error}", retry=True)

    async def _post(self, request: Request) -> Answer:
        if request.parameter("probe") == "trust":
            return Answer(200, b"{}")
        function_id = request.parameter("fnId")
        function = self._by_id.get(function_id or "") or self._by_id.get(f"{self._client.app_id}-{function_id}")
        if function is None:
            message = (
                f"Function {function_id!r} was not found in this app. If it was renamed or removed, sync the app again."
            )
            return _answer.refusal(500, "FunctionNotFound", message, retry=True)
        try:
            call = read_call(request.body, request.parameter("stepId") or "step", request.headers)
        except MalformedCallError as error:
            return _answer.refusal(500, "MalformedCall", f"The call is not understood: {error}.", retry=True)
        return await self._call(function, call)

    async def _call(self, function: Function, call: Call) -> Answer:
        started_ms = int(time.time() * 1000)
        api, threads, requests = self._client._api, self._client._threads, self._client._requests
        loop = asyncio.get_running_loop()
        if call.use_api:
            try:
                call = await loop.run_in_executor(requests, api.fetch_state, call)
            except (ServerError, ValueError) as error:
                return _answer.refusal(500, "StateUnavailable", str(error), retry=True)
        replay = Replay(call, checkpointing=function.checkpointing)
        ctx = Context(
            event=call.event,
            events=call.events,
            run_id=call.run_id,
            function_id=function.full_id,
            attempt=lambda: replay.attempt,
        )

        def checkpoint(ops: Sequence[Mapping[str, Any]]) -> Any:
            return api.checkpoint(call, ops, started_ms)

        if function.is_async:
            async_shell = AsyncShell(replay, checkpoint, threads, requests)
            step = Step(async_shell, call.run_id, api.send)
            return await async_shell.run(function.handler(ctx, step))
        sync_shell = SyncShell(replay, checkpoint)
        sync_step = SyncStep(sync_shell, call.run_id, api.send)
        return await loop.run_in_executor(threads, sync_shell.run, partial(function.handler, ctx, sync_step))

    def _public_url(self, url: str) -> str:
        """Where the server shall call: as asked, unless the settings name another origin or path."""
        parts = urlsplit(url)
        origin = (self._settings.serve_origin or f"{parts.scheme}://{parts.netloc}").rstrip("/")
        if "://" not in origin:
            origin = f"https://{origin}"
        return f"{origin}/{(self._settings.serve_path or parts.path).lstrip('/')}"

    def _refuse_stranger(self) -> Response:
        """Not signed by our server. Without `x-inngest-sdk`, as every SDK does it (protocol 3.2)."""
        _LOG.warning(
            "Refused a request whose signature is missing, too old or made with another key. If your server sent it, "
            "compare INNGEST_SIGNING_KEY with the environment's keys page, and both clocks."
        )
        headers = {"content-type": "application/json", "x-inngest-sdk-handled": "true"}
        return Response(401, headers, b'{"message":"Unauthorized"}')

    def _finish(self, answer: Answer, key: str | None) -> Response:
        headers = {
            "content-type": "application/json",
            "x-inngest-sdk": SDK_HEADER,
            "user-agent": SDK_HEADER,
            "x-inngest-sdk-handled": "true",
            "x-inngest-req-version": REQUEST_VERSION,
            "x-inngest-framework": self._framework,
            "x-inngest-expected-server-kind": self._settings.kind,
            **answer.headers,
        }
        if self._settings.env:
            headers["x-inngest-env"] = self._settings.env
        if key is not None and not self._settings.is_dev:
            headers[_signature.HEADER] = _signature.sign(key, answer.body)
        return Response(answer.status, headers, answer.body)


def _url_in(body: bytes) -> str | None:
    """The address a server names in an in-band sync, if it is one."""
    try:
        content = _json.decode(body)
    except ValueError:
        return None
    url = content.get("url") if isinstance(content, dict) else None
    return url if isinstance(url, str) and urlsplit(url).scheme in ("http", "https") else None
