"""What the SDK asks of the server: take events, register functions, hand over state, save steps (protocol 5, 7, 10.6, 17)."""

import base64
import enum
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from stepwell import _json, _signature
from stepwell._call import Call
from stepwell._errors import SendEventsError, ServerError
from stepwell._event import EventMessage
from stepwell._http import Connections, Reply, UnreachableError
from stepwell._settings import Settings
from stepwell._version import REQUEST_VERSION, SDK_HEADER

#: Tries per request, and the wait before the second one, doubled each time, with up to as much again at random.
_TRIES = 5
_FIRST_WAIT_S = 0.1


class Verdict(enum.Enum):
    """What became of a checkpoint."""

    SAVED = "saved"
    STALE = "stale"
    """The server has given this work to another call: stop at once."""
    UNSAVED = "unsaved"


class Api:
    """Blocking requests to one server, as one client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections = Connections()

    def send(self, events: Sequence[EventMessage], *, seed: str | None = None) -> list[str]:
        """Send events, all in one request, and give their internal ids in order; SendEventsError when refused.

        The seed header stays the same over all tries, so that an event that arrives twice gets the same internal id.
        """
        key = quote(self._settings.require_event_key(), safe="")
        url = f"{self._settings.event_origin}/e/{key}"
        headers = {**self._headers(), "x-inngest-event-id-seed": seed or _draw_seed()}
        body = _json.encode(events)
        try:
            reply = self._persist("POST", url, body, headers, authorized=False)
        except UnreachableError as error:
            raise SendEventsError(
                f"{self._settings.event_origin} could not be reached to send events: {error}"
            ) from error
        content = _object(reply.body)
        ids = [str(item) for item in content.get("ids") or []]
        if reply.status >= 300 or content.get("error") or len(ids) < len(events):
            reason = content.get("error") or f"HTTP status {reply.status}"
            raise SendEventsError(f"The server did not take the events: {reason}", status=reply.status, ids=ids)
        return ids

    def register(self, payload: bytes, headers: Mapping[str, str], deploy_id: str | None) -> Reply:
        """Announce the app's functions; the reply is the server's. UnreachableError when there is none."""
        query = f"?deployId={quote(deploy_id, safe='')}" if deploy_id else ""
        url = f"{self._settings.api_origin}/fn/register{query}"
        return self._authorized("POST", url, payload, {**self._headers(), **headers})

    def fetch_state(self, call: Call) -> Call:
        """Complete a call whose state was too large to send; ServerError when the server does not hand it over."""
        found = []
        for part in ("batch", "actions"):
            url = f"{self._settings.api_origin}/v0/runs/{quote(call.run_id)}/{part}"
            try:
                reply = self._persist("GET", url, None, self._headers(), authorized=True)
            except UnreachableError as error:
                raise ServerError(f"The state of run {call.run_id} could not be fetched: {error}") from error
            if reply.status != 200:
                raise ServerError(
                    f"The state of run {call.run_id} could not be fetched: HTTP status {reply.status}",
                    status=reply.status,
                )
            found.append(_json.decode(reply.body))
        return call.with_state(found[0], found[1])

    def checkpoint(self, call: Call, ops: Sequence[Mapping[str, Any]], started_ms: int) -> Verdict:
        """Save finished steps of an open call; never raises for what the server or the network does."""
        request: dict[str, Any] = {"run_id": call.run_id, "fn_id": call.fn_id, "qi_id": call.qi_id, "steps": list(ops)}
        if call.request_id:
            request["request_id"] = call.request_id
        if call.generation_id is not None:
            request["generation_id"] = call.generation_id
        request |= {"request_started_at": started_ms, "ts": int(time.time() * 1000)}
        url = f"{self._settings.api_origin}/v1/checkpoint/{quote(call.run_id)}/async"
        try:
            reply = self._persist("POST", url, _json.encode(request), self._headers(), authorized=True)
        except UnreachableError:
            return Verdict.UNSAVED
        if reply.status == 409:
            return Verdict.STALE
        return Verdict.SAVED if 200 <= reply.status < 300 else Verdict.UNSAVED

    def _headers(self) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "user-agent": SDK_HEADER,
            "x-inngest-sdk": SDK_HEADER,
            "x-inngest-req-version": REQUEST_VERSION,
        }
        if self._settings.env:
            headers["x-inngest-env"] = self._settings.env
        return headers

    def _persist(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], *, authorized: bool
    ) -> Reply:
        """Try again while the server cannot be reached, is overloaded or fails; anything else is its last word."""
        request = self._authorized if authorized else self._connections.request
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                reply = request(method, url, body, headers)
                if last or not (reply.status >= 500 or reply.status == 429):
                    return reply
            except UnreachableError:
                if last:
                    raise
            wait = _FIRST_WAIT_S * 2**attempt
            time.sleep(wait + random.uniform(0, wait))  # noqa: S311  spreads retries, protects nothing
        raise AssertionError("the last try returns or raises")

    def _authorized(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        """Show the signing key's hash; when it is not taken, show the fallback's once (protocol 4.5)."""
        keys: list[str | None] = [*self._settings.signing_keys] or [None]
        reply = Reply(0, b"")
        for key in keys:
            proof = {"authorization": f"Bearer {_signature.bearer(key)}"} if key else {}
            reply = self._connections.request(method, url, body, {**headers, **proof})
            if reply.status not in (401, 403):
                break
        return reply


def _draw_seed() -> str:
    """Make the header from which the server computes event ids (protocol 5.5): milliseconds and ten random bytes."""
    return f"{int(time.time() * 1000)},{base64.b64encode(os.urandom(10)).decode()}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = _json.decode(body)
    except (ValueError, msgspec.MsgspecError):
        return {}
    return content if isinstance(content, dict) else {}
