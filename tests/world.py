"""Builders of worlds: tenants, functions and runs written as the engine writes them, for tests and for looking at pages.

A `Story` tells one run: its clock moves as things happen, and `save` writes the run, its steps, history and live items
in the shape of the history contract (one row per run, version and position). Times are relative to `Story.start`.
Connections given here must be the owner's or the engine's: tenants cannot make tenants.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import AccountId, EnvironmentId, RunId, UserId, derive_uuid, millis, to_ulid, ulid_of


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account with one environment and one person in it."""

    account_id: AccountId
    account_name: str
    environment_id: EnvironmentId
    slug: str
    name: str
    kind: str
    user_id: UserId
    email: str


@dataclass(frozen=True, slots=True)
class Function:
    """A synced function of a tenant."""

    id: UUID
    app_id: UUID
    tenant: Tenant
    slug: str
    name: str


async def make_tenant(connection: Any, name: str = "Northwind", slug: str = "production") -> Tenant:
    """Write an account, its owner and an environment; every call makes a new tenant."""
    account, environment, user = (UUID(bytes=secrets.token_bytes(16), version=4) for _ in range(3))
    email = f"owner-{user.hex[:8]}@example.com"
    await connection.execute(
        "insert into accounts (id, name, slug) values ($1, $2, $3)", account, name, f"{name.lower()}-{account.hex[:6]}"
    )
    await connection.execute("insert into users (id, email) values ($1, $2)", user, email)
    await connection.execute(
        "insert into memberships (account_id, user_id, role) values ($1, $2, 'owner')", account, user
    )
    await connection.execute(
        "insert into environments (id, account_id, name, slug, kind) values ($1, $2, $3, $4, 'production')",
        environment, account, slug.capitalize(), slug,
    )  # fmt: skip
    return Tenant(
        AccountId(account), name, EnvironmentId(environment), slug, slug.capitalize(), "production", UserId(user), email
    )


async def make_function(connection: Any, tenant: Tenant, name: str = "process-order", app: str = "shop") -> Function:
    """Write an app (once per name) and a function of it."""
    app_id = derive_uuid("app", str(tenant.environment_id), app)
    await connection.execute(
        "insert into apps (id, account_id, environment_id, name, url) values ($1, $2, $3, $4, $5) on conflict do nothing",
        app_id, tenant.account_id, tenant.environment_id, app, "http://127.0.0.1:3000/api/inngest",
    )  # fmt: skip
    slug = f"{app}-{name}"
    function_id = derive_uuid("function", str(tenant.environment_id), slug)
    await connection.execute(
        "insert into functions (id, account_id, environment_id, app_id, slug, name, url, config)"
        " values ($1, $2, $3, $4, $5, $6, $7, '{}') on conflict do nothing",
        function_id, tenant.account_id, tenant.environment_id, app_id, slug, name, "http://127.0.0.1:3000/api/inngest",
    )  # fmt: skip
    return Function(function_id, app_id, tenant, slug, name)


def lane_id(function: Function) -> UUID:
    """The lane that stories put runs of the function into; nobody has made its row."""
    return derive_uuid("lane", str(function.id))


def step_key(name: str) -> str:
    """The hashed id an SDK would give a step."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def error(name: str, message: str, stack: str | None = None) -> dict[str, str]:
    """A tenant's error as it stands in history."""
    return {"name": name, "message": message} | ({"stack": stack} if stack else {})


@dataclass
class Story:
    """One run being told. `now` moves forward as things happen."""

    function: Function
    start: datetime
    event_name: str = "order/placed"
    event_data: Any = field(default_factory=lambda: {"order_id": "ord_58213", "total": 184.5})
    cron: str | None = None
    parent: UUID | None = None
    original: UUID | None = None
    status: str = "queued"
    now: datetime = field(init=False)
    id: RunId = field(init=False)
    event_id: UUID = field(init=False)
    version: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Mapping[str, str] | None = None
    error_code: str | None = None
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    _position: int = 0

    def __post_init__(self) -> None:
        self.now = self.start
        self.id = RunId(ulid_of(millis(self.start), secrets.token_bytes(10)))
        self.event_id = ulid_of(millis(self.start), secrets.token_bytes(10))
        self._write("run.created")

    @property
    def ulid(self) -> str:
        return to_ulid(self.id)

    def wait(self, ms: float) -> "Story":
        """Let time pass."""
        self.now += timedelta(milliseconds=ms)
        return self

    def commit(self) -> "Story":
        """Begin the next version: what follows is written by another commit."""
        self.version += 1
        self._position = 0
        return self

    def begin(self, queued_ms: float = 12) -> "Story":
        """The first call starts."""
        self.wait(queued_ms)
        self.started_at, self.status = self.now, "running"
        self._write("run.started")
        return self

    def call(
        self,
        step: str | None,
        ms: float,
        *,
        attempt: int = 0,
        failure: Mapping[str, str] | None = None,
        retry_after_ms: float | None = None,
        queued_ms: float = 3,
        outcome: str | None = None,
    ) -> "Story":
        """One answered call; time moves by its length."""
        self.commit()
        started = self.now
        self.wait(ms)
        detail = {
            "status": 206 if failure is None else 500,
            "ms": ms,
            "outcome": outcome or ("ok" if failure is None else "error"),
            "error": failure,
            "retry_after_ms": retry_after_ms,
            "sdk": "stepwell-py:v0.1.0",
            "redeliveries": 0,
            "queued_ms": queued_ms,
        }
        key = None if step is None else step_key(step)
        self._write(
            "call", step=key, attempt=attempt, started_at=started, detail=detail, item_key=f"item-{self.version}"
        )
        return self

    def plan(self, *names: str, kind: str = "run", opts: Any = None, state: str = "planned") -> "Story":
        """Steps opened by one answer: planned, sleeping, waiting or invoking."""
        for name in names:
            self._step(name, kind=kind, state=state, opts=opts)
            self._write("step.opened", step=step_key(name))
        return self

    def settle(
        self, name: str, *, output: Any = None, failure: Mapping[str, str] | None = None, memo: str | None = None,
        given: Any = None, kind: str = "run", started_at: datetime | None = None,
    ) -> "Story":  # fmt: skip
        """A step gets its outcome."""
        step = self.steps.get(step_key(name)) or self._step(name, kind=kind, state="planned", opts=None)
        order = 1 + sum(s["memo_order"] is not None for s in self.steps.values())
        step |= {
            "state": "completed" if failure is None else "failed",
            "memo": memo or json.dumps({"data": output} if failure is None else {"error": failure}),
            "memo_order": order,
            "settled_at": self.now,
            "error": None if failure is None else json.dumps(failure),
        }
        if given is not None:
            step["input"] = json.dumps(given)
        self._write("step.completed" if failure is None else "step.failed", step=step_key(name), started_at=started_at)
        return self

    def run_step(self, name: str, ms: float = 200, *, output: Any = None, given: Any = None) -> "Story":
        """An inline step: one call that reports it done."""
        self.call(name, ms).settle(name, output=output, given=given)
        return self.wait(4)

    def retrying(self, name: str, failure: Mapping[str, str]) -> "Story":
        """A step whose last attempt failed and that will be tried again."""
        step = self.steps.get(step_key(name)) or self._step(name, kind="run", state="retrying", opts=None)
        step |= {"state": "retrying", "error": json.dumps(failure)}
        return self

    def item(
        self, kind: str, step: str | None = None, *, attempt: int = 0, due_in_ms: float = 0, is_leased: bool = False
    ) -> "Story":
        """Work still to do, due `due_in_ms` from the story's now."""
        key = None if step is None else step_key(step)
        self.items.append(
            {
                "kind": kind,
                "step_key": key,
                "attempt": attempt,
                "due_at": self.now + timedelta(milliseconds=due_in_ms),
                "leased_at": self.now if is_leased else None,
            }
        )
        return self

    def complete(self, output: Any = None) -> "Story":
        """The run ends well."""
        self.status, self.ended_at = "completed", self.now
        self._write("run.completed", detail={"output": output})
        return self

    def fail(self, failure: Mapping[str, str], code: str = "function_failed") -> "Story":
        """The run ends badly."""
        self.status, self.ended_at, self.error, self.error_code = "failed", self.now, failure, code
        self._write("run.failed", detail={"error": dict(failure), "code": code})
        return self

    def cancel(self) -> "Story":
        """The run is cancelled."""
        self.status, self.ended_at = "cancelled", self.now
        self._write("run.cancelled", detail={"error": None, "code": "cancelled"})
        return self

    def _step(self, name: str, *, kind: str, state: str, opts: Any) -> dict[str, Any]:
        step: dict[str, Any] = {
            "name": name, "kind": kind, "state": state, "opts": None if opts is None else json.dumps(opts),
            "created_at": self.now, "settled_at": None, "memo": None, "memo_order": None, "error": None, "input": None,
        }  # fmt: skip
        self.steps[step_key(name)] = step
        return step

    def _write(self, kind: str, *, step: str | None = None, **more: Any) -> None:
        detail = more.pop("detail", None)
        self.history.append(
            {
                "version": self.version,
                "position": self._position,
                "kind": kind,
                "step_key": step,
                "at": self.now,
                "detail": None if detail is None else json.dumps(detail),
                "item_key": None,
                "attempt": None,
                "started_at": None,
            }
            | more
        )
        self._position += 1

    async def save(self, connection: Any) -> "Story":
        """Write everything told so far; telling on and saving again replaces it."""
        tenant = self.function.tenant
        scope = (tenant.account_id, tenant.environment_id)
        for table in ("steps", "history", "items"):
            await connection.execute(f"delete from {table} where run_id = $1", self.id)
        # The counters count every insert; what is replaced is taken out again.
        await connection.execute(
            """with gone as (delete from runs where id = $1 returning *)
               insert into usage_minutes as u (environment_id, function_id, minute, shard, account_id, made, completed,
                 failed, cancelled)
               select environment_id, function_id, minute_of(id), pg_backend_pid(), account_id, -1,
                 -(status = 'completed')::int, -(status = 'failed')::int, -(status in ('cancelled', 'skipped'))::int
               from gone on conflict (environment_id, minute, function_id, shard) do update set made = u.made - 1,
                 completed = u.completed + excluded.completed, failed = u.failed + excluded.failed,
                 cancelled = u.cancelled + excluded.cancelled""",
            self.id,
        )
        await connection.execute(
            "insert into events (environment_id, id, received_at, account_id, name, ts, payload)"
            " values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
            tenant.environment_id, self.event_id, self.start, tenant.account_id, self.event_name,
            millis(self.start), json.dumps({"name": self.event_name, "data": self.event_data}),
        )  # fmt: skip
        settled = sum(s["memo_order"] is not None for s in self.steps.values())
        failure = self.error or {}
        await connection.execute(
            """insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status,
                 version, commit_id, completed, pending, max_attempts, event_id, event_received_at, event_name, cron,
                 parent_run_id, queued_at, started_at, ended_at, error_code, error_name, error_message, original_run_id)
               values ($1,$2,$3,$4,$5,1,$6,$7,$8,$9,$10,$11,5,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23)""",
            self.id, *scope, self.function.app_id, self.function.id, derive_uuid("lane", str(self.function.id)),
            self.status, self.version, derive_uuid("commit", str(self.id), str(self.version)), settled,
            len(self.steps) - settled if self.ended_at is None else 0, self.event_id, self.start, self.event_name,
            self.cron, self.parent, self.start, self.started_at, self.ended_at, self.error_code, failure.get("name"),
            failure.get("message"), self.original,
        )  # fmt: skip
        await connection.executemany(
            "insert into steps (run_id, step_key, account_id, environment_id, kind, name, state, memo_order, memo, input,"
            " opts, error, created_at, settled_at) values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)",
            [
                (self.id, key, *scope, s["kind"], s["name"], s["state"], s["memo_order"], s["memo"], s["input"], s["opts"],
                 s["error"], s["created_at"], s["settled_at"])
                for key, s in self.steps.items()
            ],
        )  # fmt: skip
        await connection.executemany(
            "insert into history (run_id, version, position, account_id, environment_id, kind, step_key, item_key, attempt,"
            " started_at, at, detail) values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)",
            [
                (self.id, h["version"], h["position"], *scope, h["kind"], h["step_key"], h["item_key"], h["attempt"],
                 h["started_at"], h["at"], h["detail"])
                for h in self.history
            ],
        )  # fmt: skip
        if self.ended_at is None:
            worker = derive_uuid("worker")
            await connection.executemany(
                "insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, step_key,"
                " attempt, due_at, lease_id, worker_id, leased_at) values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)",
                [
                    (derive_uuid("item", str(self.id), str(n)), *scope, self.function.id, self.id,
                     derive_uuid("lane", str(self.function.id)), f"item-{n}", i["kind"], i["step_key"], i["attempt"],
                     i["due_at"], *((worker, worker) if i["leased_at"] else (None, None)), i["leased_at"])
                    for n, i in enumerate(self.items)
                ],
            )  # fmt: skip
        return self


# ------------------------------------------------------------------ stories people look at

STACK = """Traceback (most recent call last):
  File "/app/.venv/lib/python3.12/site-packages/httpx/_transports/default.py", line 394, in map_exceptions
    yield
  File "/app/shop/warehouse.py", line 57, in notify
    raise WarehouseTimeout("no answer from wms.internal within 500 ms")
shop.warehouse.WarehouseTimeout: no answer from wms.internal within 500 ms"""
TIMEOUT = error("WarehouseTimeout", "no answer from wms.internal within 500 ms", STACK)
DECLINED = error("PaymentBusy", "the card issuer asks to try again")


def order_failed(function: Function, start: datetime) -> Story:
    """An order with a parallel pair, a payment that needs three attempts, a wait, a sleep, and a step that gives up."""
    s = Story(function, start).begin(380).run_step("validate-cart", 420, given={"lines": 3}, output={"ok": True})
    s.call(None, 20).plan("reserve-inventory", "charge-card").wait(60)
    planned = s.now
    s.call("reserve-inventory", 1240, queued_ms=20).settle("reserve-inventory", output={"reserved": ["sku-1", "sku-2"]})
    s.now = planned
    s.call("charge-card", 920, failure=DECLINED, retry_after_ms=2000).retrying("charge-card", DECLINED).wait(2000)
    s.call("charge-card", 800, attempt=1, failure=DECLINED, retry_after_ms=2000).wait(2000)
    s.call("charge-card", 1120, attempt=2).settle("charge-card", output={"charge_id": "ch_77", "amount": 184.50}).wait(
        10
    )
    s.call(None, 30).plan("wait-for-approval", kind="wait_for_event", state="waiting",
                          opts={"event": "order/approved", "timeout": "1h", "if": "async.data.order_id == event.data.order_id"})  # fmt: skip
    s.wait(372_000).commit().settle("wait-for-approval", memo=json.dumps({"data": {"name": "order/approved"}})).wait(5)
    s.call(None, 25).plan("cool-off", kind="sleep", state="sleeping", opts={"until": "2m"})
    s.wait(120_000).commit().settle("cool-off", memo="null").wait(5)
    for attempt, pause in enumerate((1200, 2400, 4100, 0)):
        s.call("notify-warehouse", 600, attempt=attempt, failure=TIMEOUT).wait(pause)
    return s.settle("notify-warehouse", failure=TIMEOUT, given={"order_id": "ord_58213", "lines": [{"sku": "a"}]}).fail(
        TIMEOUT
    )


def order_completed(function: Function, start: datetime) -> Story:
    """The same order on a good day: six steps, one retry."""
    s = Story(function, start).begin(12).run_step("validate-cart", 40, output={"ok": True})
    s.call(None, 12).plan("reserve-inventory", "score-fraud").wait(8)
    planned = s.now
    s.call("reserve-inventory", 240).settle("reserve-inventory", output={"reserved": True})
    s.now = planned
    s.call("score-fraud", 310).settle("score-fraud", output={"score": 0.02}).wait(6)
    s.call("charge-card", 180, failure=DECLINED).retrying("charge-card", DECLINED).wait(2000)
    s.call("charge-card", 210, attempt=1).settle("charge-card", output={"charge_id": "ch_1"}).wait(5)
    s.run_step("send-receipt", 90, output="sent")
    return s.complete({"order_id": "ord_1", "total": 184.50, "note": "tab\there <b>not bold</b>"})


def order_running(function: Function, start: datetime) -> Story:
    """A call in flight since half a second before the story's end."""
    s = Story(function, start).begin(15).run_step("validate-cart", 120, output={"ok": True})
    s.call(None, 12).plan("reserve-inventory", "charge-card").wait(10)
    s.call("reserve-inventory", 300).settle("reserve-inventory", output=1)
    return s.item("step", "charge-card", is_leased=True)


def order_retrying(function: Function, start: datetime) -> Story:
    """A payment that failed once and is due again in a while."""
    s = Story(function, start).begin(15).run_step("validate-cart", 120, output={"ok": True})
    s.call("charge-card", 400, failure=DECLINED).retrying("charge-card", DECLINED)
    return s.item("discover", "charge-card", attempt=1, due_in_ms=600_000)


def order_waiting(function: Function, start: datetime) -> Story:
    """Asleep for a day."""
    s = Story(function, start).begin(15).run_step("send-welcome", 220, output="sent")
    s.call(None, 10).plan("a-day-later", kind="sleep", state="sleeping", opts={"until": "1d"})
    return s.item("sleep", "a-day-later", due_in_ms=86_400_000)


def order_queued(function: Function, start: datetime) -> Story:
    """Nobody has had time for it yet."""
    return Story(function, start).item("discover")


def order_cancelled(function: Function, start: datetime) -> Story:
    """Cancelled while it slept."""
    s = Story(function, start).begin(9).run_step("export-rows", 800, output={"rows": 12})
    s.call(None, 10).plan("tomorrow", kind="sleep", state="sleeping", opts={"until": "1d"})
    return s.wait(61_000).commit().cancel()


#: One story of each state, in the order a list would look best.
STORIES = (
    order_running, order_queued, order_retrying, order_completed, order_waiting, order_failed, order_cancelled,
)  # fmt: skip


async def make_showcase(connection: Any, tenant: Tenant, now: datetime) -> dict[str, Story]:
    """One run of each state, told so that it ends about now; returned by the story's name."""
    out = {}
    names = ("process-order", "sync-crm-contact", "charge-subscription", "generate-thumbnails", "onboarding-emails",
             "reindex-search", "export-ledger")  # fmt: skip
    for n, (tell, name) in enumerate(zip(STORIES, names, strict=True)):
        function = await make_function(connection, tenant, name, app=("shop", "growth", "billing")[n % 3])
        length = tell(function, now).now - now
        story = tell(function, now - length - timedelta(milliseconds=900 + 40_000 * n))
        out[tell.__name__.removeprefix("order_")] = await story.save(connection)
    return out
