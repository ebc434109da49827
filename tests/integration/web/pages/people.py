"""Signed-in people of two organizations on the whole application, each with a world of look-alike rows."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from app.adapters.http import MAX_BODY, Answer, CallFailed
from app.domain.ids import millis, ulid_of
from app.store.db import tenant
from tests import world
from tests.integration.accounts.world import Tenant, scope_of
from tests.integration.web.site import Client, log_in

#: What a tenant may write into names, payloads and errors.
HOSTILE = "<script>alert(1)</script>\u202eevil \"'><img src=x onerror=alert(1)>"
SAME = {"sec-fetch-site": "same-origin"}


def world_of(made: Tenant) -> world.Tenant:
    """The bootstrapped organization as builders know it."""
    scope = scope_of(made)
    return world.Tenant(
        scope.account_id, made["organization"], scope.environment_id, "production", "Production", "production",
        made["user_id"], made["user"],  # type: ignore[arg-type]
    )  # fmt: skip


class Person:
    """Somebody with a browser: signs in, looks, presses buttons."""

    def __init__(self, client: Client, made: Tenant) -> None:
        self.client, self.made, self.csrf = client, made, ""
        self.tenant = world_of(made)

    async def sign_in(self) -> "Person":
        """Sign in; from now on the client's cookie is this person's."""
        self.csrf = await log_in(self.client, self.made)
        return self

    async def get(self, path: str, **headers: str) -> Any:
        """Look at a page below the environment."""
        return await self.client.get(f"/env/production{path}", headers=headers)

    async def post(self, path: str, **fields: str) -> Any:
        """Press a button: a form of ours, with its token."""
        return await self.client.post(f"/env/production{path}", data={"csrf_token": self.csrf} | fields, headers=SAME)


async def make_role(owner: Any, made: Tenant, role: str) -> None:
    """Give the organization's person another role."""
    await owner.execute("update memberships set role = $2 where account_id = $1", scope_of(made).account_id, role)


async def actions(pool: Any, made: Tenant) -> list[str]:
    """What the audit log says was done, oldest first, without sign-ins."""
    async with tenant(pool, scope_of(made).account_id) as connection:
        rows = await connection.fetch(
            "select action from audit_log where account_id = $1 order by at", scope_of(made).account_id
        )
    return [row["action"] for row in rows if row["action"].partition(".")[0] in ("app", "function", "event", "role")]


def config(slug: str, **more: Any) -> dict[str, Any]:
    """A function as an SDK registers it."""
    return {
        "id": slug,
        "name": slug.removeprefix("shop-"),
        "triggers": [{"event": "order/placed"}],
        "steps": {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": "http://app.test/api/inngest"}}},
    } | more  # fmt: skip


async def store_function(owner: Any, who: world.Tenant, name: str, **more: Any) -> world.Function:
    """Write a function with settings, and its first version."""
    function = await world.make_function(owner, who, name)
    text = json.dumps(config(function.slug, name=name) | more)
    await owner.execute("update functions set config = $2 where id = $1", function.id, text)
    await owner.execute(
        "insert into function_versions (function_id, version, account_id, environment_id, config, url)"
        " values ($1, 1, $2, $3, $4, '') on conflict do nothing",
        function.id, who.account_id, who.environment_id, text,
    )  # fmt: skip
    return function


async def store_event(
    owner: Any, who: world.Tenant, name: str = "order/placed", payload: str | None = None, **columns: Any
) -> Any:
    """Write one event that has been handled; returns its id."""
    now = await owner.fetchval("select clock()")
    event_id = ulid_of(millis(now), uuid4().bytes[:10])
    text = payload or json.dumps({"data": {"order_id": 1}, "name": name, "ts": millis(now), "user": {}})
    values = {
        "environment_id": who.environment_id, "id": event_id, "received_at": now, "account_id": who.account_id,
        "name": name, "ts": millis(now), "payload": text,
    } | columns  # fmt: skip
    marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    await owner.execute(f"insert into events ({', '.join(values)}) values ({marks})", *values.values())
    return event_id


class AppStandIn:
    """A `Caller` that answers as an app would. `answers` is asked per method; a CallFailed in it is raised."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.calls: list[tuple[str, str]] = []

    async def call(
        self, method: str, url: str, *, headers: Any, body: bytes, timeout_s: float, max_body: int = MAX_BODY
    ) -> Answer:
        """Answer, or fail, as told."""
        self.calls.append((method, url))
        answer = self.answers[method]
        if isinstance(answer, CallFailed):
            raise answer
        made: Answer = answer(headers, body) if callable(answer) else answer
        return made

    async def close(self) -> None:
        """Nothing to close."""
