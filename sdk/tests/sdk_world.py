"""A tiny world for the SDK's tests: an in-process ASGI caller and an engine that drives runs to their end.

The engine follows protocol 13 closely enough for whole runs and keeps a record of what was said. It stands in for the
server: no network, no waiting, sleeps and retries happen at once.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import stepwell
from stepwell import _http, _signature
from stepwell.serve import AsgiApp

RUN_ID = "01HQRN0000000000000000RN00"
SIGNING_KEY = "signkey-test-0123456789abcdef"


@dataclass
class HttpAnswer:
    """What the app answered; `content` is the decoded body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def call_asgi(
    app: AsgiApp,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **scope: Any,
) -> HttpAnswer:
    """Make one request to an ASGI app."""
    return asyncio.run(call_asgi_async(app, method, target, body, headers, **scope))


async def call_asgi_async(
    app: AsgiApp,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **scope: Any,
) -> HttpAnswer:
    parts = urlsplit(target)
    sent: list[Any] = []
    chunks = deque([body[:10], body[10:]])

    async def receive() -> dict[str, Any]:
        chunk = chunks.popleft()
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "app.test", **(headers or {})}
    await app(
        {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            **scope,
        },
        receive,
        send,
    )
    received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return HttpAnswer(sent[0]["status"], received, b"".join(message.get("body", b"") for message in sent[1:]))


@dataclass
class Request:
    """A request the SDK sent to the server."""

    method: str
    url: str
    body: Any
    headers: dict[str, str]


class FakeServer:
    """Takes the place of the SDK's connections and answers as `respond` says."""

    def __init__(self, respond: Callable[[Request], tuple[int, Any]]) -> None:
        self.respond = respond
        self.requests: list[Request] = []

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> _http.Reply:
        request = Request(method, url, json.loads(body) if body else None, dict(headers))
        self.requests.append(request)
        status, content = self.respond(request)
        if status == 0:
            raise _http.UnreachableError("no answer")
        return _http.Reply(status, json.dumps(content).encode())


def connect(client: stepwell.Client, respond: Callable[[Request], tuple[int, Any]]) -> FakeServer:
    """Let the client talk to a fake server."""
    server = FakeServer(respond)
    client._api._connections = server  # type: ignore[assignment]
    return server


def make_client(**settings: Any) -> stepwell.Client:
    """A client in dev mode, unless told otherwise, that no environment variable of the machine can change."""
    settings = {"is_dev": True, "base_url": "http://server.test", "checkpointing": False, **settings}
    return stepwell.Client("app", **settings)


@dataclass
class Engine:
    """Drives one run of one function until it has ended, first in, first out."""

    app: AsgiApp
    function: str
    event: dict[str, Any] = field(default_factory=lambda: {"name": "t/go", "data": {}})
    max_attempts: int = 3
    signing_key: str | None = None
    replies: dict[str, Any] = field(default_factory=dict)
    """Memos to answer waits and invokes with, by step id."""
    steps: dict[str, Any] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    exchange: list[str] = field(default_factory=list)
    answers: list[HttpAnswer] = field(default_factory=list)
    plan_only: bool = False
    pending: set[str] = field(default_factory=set)
    checkpoint_status: list[int] = field(default_factory=list)
    """Statuses for the next checkpoints; 200 when used up."""
    outcome: tuple[str, Any] | None = None
    _attempt: int = 0
    _items: deque[tuple[str, int]] = field(default_factory=lambda: deque([("step", 0)]))
    _known: set[str] = field(default_factory=lambda: {"step:0"})

    def run(self, limit: int = 60) -> tuple[str, Any]:
        """Call the app until the run has ended; gives `("ok", result)` or `("failed", error)`."""
        for _ in range(limit):
            if self.outcome is not None:
                return self.outcome
            assert self._items, f"the run is stuck: {self.exchange}"
            self._call(*self._items.popleft())
        raise AssertionError(f"the run does not end: {self.exchange}")

    def checkpoint(self, request: Request) -> tuple[int, Any]:
        """Serve the checkpoint endpoint."""
        assert request.url.endswith(f"/v1/checkpoint/{RUN_ID}/async")
        status = self.checkpoint_status.pop(0) if self.checkpoint_status else 200
        self.exchange.append(f"checkpoint {status} {_label(request.body['steps'])}")
        if status == 200:
            self._attempt = 0
            for op in request.body["steps"]:
                self._complete(op["id"], {"data": op["data"]})
        return status, {}

    def body_of(self, step_id: str, attempt: int) -> bytes:
        """The call request for an item, in canonical form."""
        ctx = {
            "run_id": RUN_ID,
            "fn_id": "11111111-1111-4111-8111-111111111111",
            "qi_id": "item",
            "attempt": attempt,
            "max_attempts": self.max_attempts,
            "stack": {"stack": self.stack, "current": len(self.stack)},
            "disable_immediate_execution": self.plan_only,
            "use_api": False,
            "step_id": step_id,
        }
        request = {"ctx": ctx, "event": self.event, "events": [self.event], "steps": self.steps, "use_api": False}
        return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def _call(self, step_id: str, attempt: int) -> None:
        body = self.body_of(step_id, attempt)
        headers = {"x-request-id": "01HREQ", "x-inngest-generation-id": "7"}
        if self.signing_key:
            headers["x-inngest-signature"] = _signature.sign(self.signing_key, body)
        target = f"/api/inngest?fnId={self.function}&stepId={step_id}"
        self.exchange.append(f"{step_id[:6]} a{attempt}")
        self._attempt, place = attempt, len(self.exchange) - 1
        answer = call_asgi(self.app, "POST", target, body, headers)
        self.answers.append(answer)
        said = _label(answer.content) if answer.status == 206 else json.dumps(answer.content)[:80]
        self.exchange[place] += f" -> {answer.status} {said}"
        if answer.status == 200:
            self.outcome = ("ok", answer.content)
        elif answer.status == 206:
            self._apply(step_id, answer)
        elif answer.headers.get("x-inngest-no-retry") == "true" or self._attempt + 1 >= self.max_attempts:
            self.outcome = ("failed", answer.content)
        else:
            self._items.append((step_id, self._attempt + 1))

    def _apply(self, step_id: str, answer: HttpAnswer) -> None:
        ops = answer.content
        if len(ops) > 1 and any(op["op"] == "StepPlanned" for op in ops) and not _is_race(ops):
            self.plan_only = True
            self.pending |= {op["id"] for op in ops if op["id"] not in self.steps}
        for op in ops:
            match op["op"]:
                case "StepRun":
                    self._complete(op["id"], {"data": op["data"]})
                    self._discover()
                case "StepPlanned":
                    self._enqueue(f"plan:{op['id']}", op["id"])
                case "StepError" if answer.headers.get("x-inngest-no-retry") != "true":
                    self._items.append((step_id, self._attempt + 1))
                case "StepError" | "StepFailed":
                    self._complete(op["id"], {"error": op["error"]})
                    self._discover()
                case "Sleep":
                    self._complete(op["id"], None)
                    self._discover()
                case "WaitForEvent" | "InvokeFunction":
                    self._complete(op["id"], self.replies[op["displayName"]])
                    self._discover()
                case unknown:
                    raise AssertionError(f"unexpected op {unknown}")

    def _complete(self, step_id: str, memo: Any) -> None:
        self.pending.discard(step_id)
        if step_id not in self.steps:
            self.steps[step_id] = memo
            self.stack.append(step_id)

    def _discover(self) -> None:
        if not self.pending:
            self.plan_only = False
            self._enqueue(f"step:{len(self.stack)}", "step")

    def _enqueue(self, key: str, step_id: str) -> None:
        if key not in self._known:
            self._known.add(key)
            self._items.append((step_id, 0))


def _is_race(ops: list[dict[str, Any]]) -> bool:
    return any((op.get("opts") or {}).get("parallelMode") == "race" for op in ops)


def _label(ops: list[dict[str, Any]]) -> str:
    return " ".join(f"{op['op']}:{op['displayName']}" for op in ops)
