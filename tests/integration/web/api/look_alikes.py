"""Two tenants with the same app, function, event and run: only ids and keys tell them apart."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from app.domain.event import NewEvent
from app.domain.flow.lanes import lane_of
from app.domain.ids import RunId, derive_run_id, to_ulid
from app.domain.scope import Scope
from app.engine.ingest import Ingest
from app.engine.orders import insert
from app.engine.overrides import Who, hold_function
from app.engine.sync import function_id_of, register
from app.store.audit import Actor
from app.store.db import Pool
from tests.integration.accounts.world import new_tenant, scope_of
from tests.integration.engine.played import config, read, registration


@dataclass(frozen=True)
class LookAlike:
    """One of the two; ids as they stand in paths."""

    scope: Scope
    event_key: str
    signing_key: str
    app_id: str
    function_id: str
    event_id: str
    run_id: str
    ended_run_id: str
    order_id: str
    override_id: str

    @property
    def bearer(self) -> dict[str, str]:
        """The header that proves the key."""
        return {"authorization": f"Bearer {self.signing_key}"}

    def id_of(self, kind: str) -> str:
        """What stands in a path for `run`, `ended`, `event`, `app`, `function`, `order`, `override` or `environment`."""
        return {
            "run": self.run_id,
            "ended": self.ended_run_id,
            "event": self.event_id,
            "app": self.app_id,
            "function": self.function_id,
            "order": self.order_id,
            "override": self.override_id,
            "environment": str(self.scope.environment_id),
        }[kind]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no answer to anybody else may hold."""
        return self.app_id, self.function_id, self.event_id, self.run_id, self.ended_run_id, str(self.scope.account_id)


async def look_alike(database: str, pool: Pool) -> LookAlike:
    """Make one of them."""
    made = await new_tenant(database)
    scope = scope_of(made)
    registered = await register(pool, scope, read(registration(config("shop-order"))), kind="out_of_band")
    ingest = Ingest(pool)
    ingest.start()
    event_id = (await ingest.add(scope, [NewEvent("shop-order/sent", b'{"n":1}', 1_700_000_000_000)]))[0]
    await ingest.stop()
    function_id = function_id_of(scope, "shop-order")
    open_run, ended_run = [await run_of(pool, scope, event_id, registered.app_id, ended) for ended in (False, True)]
    return LookAlike(
        scope,
        made["event_key"],
        made["signing_key"],
        str(registered.app_id),
        str(function_id),
        to_ulid(event_id),
        to_ulid(open_run),
        to_ulid(ended_run),
        await _order(pool, scope, registered.app_id),
        str((await hold_function(pool, scope, function_id, timedelta(hours=1), Who(Actor("ann@example.com")))).id),
    )


async def _order(pool: Pool, scope: Scope, app_id: UUID) -> str:
    """An order to cancel runs of long ago, which there are none of."""
    async with pool.acquire() as connection:
        row = await insert(
            connection,
            scope,
            app_id=app_id,
            function_id=function_id_of(scope, "shop-order"),
            slug="shop-order",
            app_name="shop",
            after=None,
            before=datetime(2020, 1, 1, tzinfo=UTC),
            expression=None,
            cause="api",
            due_at=None,
        )
    return to_ulid(row["id"])


async def run_of(pool: Pool, scope: Scope, event_id: UUID, app_id: UUID, is_ended: bool) -> RunId:
    """A run of that event as the engine would have left it: one that sleeps, or one that is done."""
    function_id = function_id_of(scope, "shop-order")
    async with pool.acquire() as connection, connection.transaction():
        received = await connection.fetchval("select received_at from events where id = $1", event_id)
        run_id = derive_run_id(function_id, uuid4().bytes, received)
        tenant = (scope.account_id, scope.environment_id)
        await connection.execute(
            "insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status,"
            " commit_id, completed, discoveries, max_attempts, event_id, event_received_at, event_name, queued_at,"
            " started_at, ended_at) values ($1, $2, $3, $4, $5, 1, $6, $7, $1, $8, 1, 1, $9, $10, 'shop-order/sent',"
            " clock(), clock(), case when $8 = 1 then clock() end)",
            run_id, *tenant, app_id, function_id, lane_of(function_id), "completed" if is_ended else "running",
            int(is_ended), event_id, received,
        )  # fmt: skip
        if is_ended:
            await connection.execute(
                "insert into steps (run_id, step_key, account_id, environment_id, kind, name, state, memo_order, memo,"
                " settled_at) values ($1, 'a', $2, $3, 'run', 'a', 'completed', 1, '{\"data\":1}', clock())",
                run_id, *tenant,
            )  # fmt: skip
            await connection.execute(
                "insert into history (run_id, version, position, account_id, environment_id, kind, detail)"
                " values ($1, 1, 1, $2, $3, 'run.completed', $4)",
                run_id, *tenant, json.dumps({"code": None, "output": {"of": str(scope.account_id)}}),
            )  # fmt: skip
        else:
            await connection.execute(
                "insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, due_at)"
                " values ($1, $2, $3, $4, $5, $6, 'start', 'discover', clock() + interval '1 hour')",
                uuid4(), *tenant, function_id, run_id, lane_of(function_id),
            )  # fmt: skip
    return run_id
