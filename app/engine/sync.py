"""Learns an app's functions (protocol 7): what it registers becomes rows, and every process hears of a new version.

Two roads lead to `register`: the app posts its functions (`/fn/register`, out-of-band), or we ask it to (`sync_app`): a
signed PUT to its URL, answered in-band with the functions, or by a post of its own. Whether an out-of-band sync worked
is judged by what arrived, never by the PUT's status, because SDKs disagree about that (7.1).
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.adapters.http import Answer, Caller, CallFailed
from app.domain.backoff import stored
from app.domain.cron import CronRefused, read_cron
from app.domain.errors import RegistrationRefused
from app.domain.expressions import ExpressionRefused, compile_expression
from app.domain.flow.concurrency import limits_of
from app.domain.flow.lanes import Flow
from app.domain.ids import AppId, FunctionId, derive_uuid
from app.domain.limits import PlanLimits, plan_of
from app.domain.protocol.addresses import normalise_url, same_place
from app.domain.protocol.config_fields import Checks
from app.domain.protocol.function_config import FunctionConfig, placeless
from app.domain.protocol.registration import Registration, read_registration
from app.domain.protocol.signature import sign, verify_response
from app.domain.scope import Scope
from app.engine.crons import put_schedules
from app.engine.flow_rows import lane_columns
from app.store.db import Pool
from app.store.named import fetch, named

#: How long an app may take to answer a PUT, and its own post to arrive.
_PATIENCE_S = 20.0
FIX_FUNCTIONS = "Change the functions' settings and sync again."


@dataclass(frozen=True, slots=True)
class Synced:
    """A sync that worked. `is_modified` is false when nothing differed from the last one."""

    sync_id: UUID
    app_id: AppId
    is_modified: bool
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SyncFailed:
    """A sync that did not: a stable code (feature-semantics A3), what happened, and what to do about it."""

    code: str
    message: str
    fix: str
    details: dict[str, object] = field(default_factory=dict)
    #: Whether a row of `syncs` tells it already.
    is_told: bool = False


def checks(plan: PlanLimits | None = None) -> Checks:
    """The judges a registration is read with; without a plan nothing is compared with one."""

    def expression(text: str, has_async: bool) -> str | None:
        try:
            compile_expression(text, ("event", "async") if has_async else ("event",))
        except ExpressionRefused as refused:
            return refused.message
        return None

    def cron(text: str) -> str | None:
        try:
            read_cron(text)
        except CronRefused as refused:
            return str(refused)
        return None

    return Checks(expression=expression, cron=cron, plan=plan)


async def checks_of(pool: Pool, scope: Scope) -> Checks:
    """The judges of an environment, which know what its plan allows."""
    async with pool.acquire(timeout=5) as connection:
        rows = await fetch(connection, named("functions", "environment"), environment=scope.environment_id)
    return checks(plan_of(rows[0]["plan"]) if rows else None)


async def register(
    pool: Pool,
    scope: Scope,
    registration: Registration,
    *,
    kind: str,
    force: bool = False,
    deploy_id: str | None = None,
) -> Synced:
    """Write what an app registered, in one transaction; one sync of an environment at a time.

    Functions it no longer has are archived; their runs go on until a call says otherwise. `deploy_id` is what we, or who
    else asked for the sync, named it by. Raises RegistrationRefused (`slug_taken`) when another app of the environment
    has one of the slugs.
    """
    app_id = AppId(derive_uuid("app", scope.environment_id.bytes, registration.app_name))
    sync_id = _sync_id(scope, deploy_id)
    sdk = f"{registration.sdk_language}:v{registration.sdk_version}" if registration.sdk_language else ""
    tell: dict[str, Any] = {
        "id": sync_id,
        "account": scope.account_id,
        "environment": scope.environment_id,
        "app": app_id,
        "url": registration.url,
        "kind": kind,
        "sdk": sdk,
        "framework": registration.framework,
        "error_code": None,
        "error": None,
    }
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        if not await fetch(connection, named("sync", "hold_environment"), environment=scope.environment_id):
            raise RegistrationRefused("env_archived", "This environment is archived; it takes no syncs.")
        known_app = await fetch(
            connection, named("sync", "find_app"), environment=scope.environment_id, name=registration.app_name
        )
        if (
            known_app
            and known_app[0]["checksum"] == registration.checksum
            and not force
            and _is_well(known_app[0], registration)
        ):
            await fetch(connection, named("sync", "forget_unchanged"), environment=scope.environment_id, app=app_id)
            await fetch(
                connection, named("sync", "touch_app"), environment=scope.environment_id, app=known_app[0]["id"]
            )
            await fetch(connection, named("sync", "tell"), **tell, status="unchanged", added=[], changed=[], removed=[])
            return Synced(sync_id, app_id, is_modified=False)
        wanted = {config.slug: config for config in registration.functions}
        rows = await fetch(
            connection, named("sync", "functions"), environment=scope.environment_id, app=app_id, slugs=list(wanted)
        )
        known = {row["slug"]: row for row in rows}
        taken = [
            slug
            for slug in wanted
            if slug in known and known[slug]["app_id"] != app_id and not known[slug]["archived_at"]
        ]
        if taken:
            raise RegistrationRefused(
                "slug_taken", f"Another app of this environment has a function {taken[0]}.", {"slug": taken[0]}
            )
        added = [s for s in wanted if s not in known or known[s]["archived_at"]]
        changed = [s for s in wanted if s not in added and _differs(known[s], wanted[s])]
        removed = [row for slug, row in known.items() if slug not in wanted and not row["archived_at"]]
        await fetch(
            connection,
            named("sync", "put_app"),
            id=app_id,
            account=scope.account_id,
            environment=scope.environment_id,
            name=registration.app_name,
            url=registration.url,
            sdk=sdk,
            framework=registration.framework,
            checksum=registration.checksum,
        )
        await _put_functions(connection, scope, app_id, [wanted[s] for s in (*added, *changed)])
        await _put_flow(connection, scope, list(wanted.values()))
        if removed:
            await fetch(connection, named("flow", "drop_schedules"), functions=[r["id"] for r in removed])
            await fetch(
                connection,
                named("sync", "archive_functions"),
                environment=scope.environment_id,
                ids=[r["id"] for r in removed],
            )
        await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
        gone = [row["slug"] for row in removed]
        await fetch(
            connection, named("sync", "tell"), **tell, status="succeeded", added=added, changed=changed, removed=gone
        )
    warnings = tuple({"code": w.code, "message": w.message} for w in registration.warnings)
    return Synced(sync_id, app_id, True, tuple(added), tuple(changed), tuple(gone), warnings)


def _sync_id(scope: Scope, deploy_id: str | None) -> UUID:
    """The id of a sync: of the name it was asked for by, so that who asked finds what became of it."""
    return derive_uuid("sync", scope.environment_id.bytes, deploy_id) if deploy_id else uuid.uuid4()


def function_id_of(scope: Scope, slug: str) -> FunctionId:
    """The id of a function: computed, so that it survives being removed and coming back."""
    return FunctionId(derive_uuid("function", scope.environment_id.bytes, slug))


async def _put_functions(connection: Any, scope: Scope, app_id: AppId, configs: list[FunctionConfig]) -> None:
    if not configs:
        return
    ids = [function_id_of(scope, c.slug) for c in configs]
    await fetch(
        connection,
        named("sync", "put_functions"),
        id=ids,
        slug=[c.slug for c in configs],
        name=[c.name for c in configs],
        config=[c.raw.decode() for c in configs],
        url=[c.url for c in configs],
        backoff=[stored(c.backoff) for c in configs],
        account=scope.account_id,
        environment=scope.environment_id,
        app=app_id,
    )


async def _put_flow(connection: Any, scope: Scope, configs: list[FunctionConfig]) -> None:
    """Limits, plain lanes and schedules of all functions of an app, in step with what it registered."""
    ids = [function_id_of(scope, c.slug) for c in configs]
    environment = (await fetch(connection, named("functions", "environment"), environment=scope.environment_id))[0]
    plan = plan_of(environment["plan"])
    rows = await fetch(connection, named("overrides", "changed_limits"), functions=ids)
    changed = {row["limit_id"] for row in rows}
    limits = [(f, limit) for f, c in zip(ids, configs, strict=True) for limit in limits_of(f, c, plan, changed)]
    await fetch(
        connection,
        named("flow", "put_limits"),
        functions=ids,
        id=[limit.id for _, limit in limits],
        account=[scope.account_id] * len(limits),
        environment=[scope.environment_id] * len(limits),
        function=[f for f, _ in limits],
        kind=[str(limit.kind) for _, limit in limits],
        cap=[limit.cap for _, limit in limits],
        every=[limit.every for _, limit in limits],
    )
    plain = [
        (scope.account_id, scope.environment_id, f, Flow(f, limits_of(f, c, plan, changed)).plain_lane(scope))
        for f, c in sorted(zip(ids, configs, strict=True), key=lambda pair: pair[0])
    ]
    keys = sorted({(key.id, f, key) for _, _, f, lane in plain for key in lane.flow_keys}, key=lambda k: k[0])
    await fetch(
        connection,
        named("flow", "make_lanes"),
        **lane_columns(sorted(plain, key=lambda lane: lane[3].id)),
        key_id=[key_id for key_id, _, _ in keys],
        key_account=[scope.account_id] * len(keys),
        key_environment=[scope.environment_id] * len(keys),
        key_function=[f for _, f, _ in keys],
        key_scope=[key.scope for *_, key in keys],
        key_text=[key.text for *_, key in keys],
    )
    await fetch(connection, named("flow", "unblock"), functions=ids)
    await put_schedules(connection, scope, list(zip(ids, configs, strict=True)))
    if plan.schedules is not None:
        count = (await fetch(connection, named("sync", "count_schedules"), account=scope.account_id))[0]["count"]
        if count > plan.schedules:
            raise RegistrationRefused(
                "plan_upgrade_required",
                f"With this app there are {count} crons; the plan {plan.name} allows {plan.schedules}.",
                {"crons": count, "allowed": plan.schedules},
            )


def _is_well(app: Any, registration: Registration) -> bool:
    is_there = same_place(app["url"]) == same_place(registration.url)
    return bool(app["error_code"] is None and app["archived_at"] is None and is_there)


def _differs(row: Any, config: FunctionConfig) -> bool:
    is_same = placeless(row["config"].encode(), row["url"]) == placeless(config.raw, config.url)
    return not is_same or same_place(row["url"]) != same_place(config.url)


async def sync_app(
    pool: Pool,
    caller: Caller,
    scope: Scope,
    url: str,
    *,
    server_kind: str,
    keys: list[str],
    on_step: Callable[[str], None] = lambda _s: None,
) -> Synced | SyncFailed:
    """Ask the app at `url` for its functions and register them. `on_step` hears `reached`, `signed`, `found`.

    In-band first; an SDK that does not do that answers out-of-band, and its own post is waited for. A failure is kept
    as a row of `syncs`, also when it belongs to no app yet.
    """
    done = await _ask(pool, caller, scope, url, server_kind, keys, on_step)
    if isinstance(done, SyncFailed) and not done.is_told:
        await tell_failed(pool, scope, done, url=normalise_url(url), kind="in_band")
    return done


async def register_body(pool: Pool, scope: Scope, body: bytes, deploy_id: str | None = None) -> Synced:
    """Read and register what an app posted, with the `deployId` it echoes. Raises RegistrationRefused, after the failure
    was kept.
    """
    registration: Registration | None = None
    try:
        registration = read_registration(body, checks=await checks_of(pool, scope))
        return await register(pool, scope, registration, kind="out_of_band", deploy_id=deploy_id)
    except RegistrationRefused as refused:
        failed = SyncFailed(refused.code, refused.message, FIX_FUNCTIONS, refused.details)
        url, name = (registration.url, registration.app_name) if registration else place_of(body)
        if refused.code != "env_archived":
            await tell_failed(pool, scope, failed, url=url, kind="out_of_band", app_name=name, deploy_id=deploy_id)
        raise


async def tell_failed(
    pool: Pool,
    scope: Scope,
    failed: SyncFailed,
    *,
    url: str,
    kind: str,
    app_name: str = "",
    deploy_id: str | None = None,
) -> None:
    """Keep a failed sync with its code, cause and fix; the app that lives there or has the name shows it too."""
    async with pool.acquire(timeout=5) as connection:
        await fetch(
            connection,
            named("sync", "tell_failed"),
            id=_sync_id(scope, deploy_id),
            account=scope.account_id,
            environment=scope.environment_id,
            app_name=app_name,
            url=_short(url),
            kind=kind,
            error_code=failed.code,
            error=_short(failed.message),
            fix=failed.fix,
        )


async def remove_app(pool: Pool, scope: Scope, url: str) -> int:
    """Archive the apps that live at an address, whatever name of this machine it uses; returns how many there were."""
    place = same_place(url)
    async with pool.acquire(timeout=5) as connection, connection.transaction():
        await fetch(connection, named("sync", "hold_environment"), environment=scope.environment_id)
        rows = await fetch(connection, named("sync", "apps_of_environment"), environment=scope.environment_id)
        ids = [row["id"] for row in rows if same_place(row["url"]) == place]
        if ids:
            await fetch(connection, named("sync", "archive_apps"), environment=scope.environment_id, ids=ids)
            # As for a function that is removed: due times nobody will run are owed no answers. A sync brings them back.
            await fetch(connection, named("sync", "drop_schedules_of"), environment=scope.environment_id, apps=ids)
            await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
    return len(ids)


def place_of(body: bytes) -> tuple[str, str]:
    """Address and name of the app in a registration that was refused, as far as they can be read."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    fields = {key.lower(): item for key, item in value.items()} if isinstance(value, dict) else {}
    url, name = fields.get("url"), fields.get("appname")
    return normalise_url(_short(url)) if isinstance(url, str) else "", _short(name) if isinstance(name, str) else ""


async def _ask(
    pool: Pool,
    caller: Caller,
    scope: Scope,
    url: str,
    server_kind: str,
    keys: list[str],
    on_step: Callable[[str], None],
) -> Synced | SyncFailed:
    began = await _now(pool)
    deploy_id = str(uuid.uuid4())
    target = f"{normalise_url(url)}{'&' if '?' in normalise_url(url) else '?'}deployId={deploy_id}"
    body = b'{"url":' + msgspec.json.encode(url) + b"}"
    headers = {
        "content-type": "application/json",
        "x-inngest-server-kind": server_kind,
        "x-inngest-sync-kind": "in_band",
    }
    try:
        answer = await _put(caller, target, headers, body, keys)
    except CallFailed as failure:
        return SyncFailed(
            "http_unreachable",
            failure.message,
            "Start the app, and check that the URL can be reached from Stepwell.",
            {"kind": failure.kind},
        )
    on_step("reached")
    if answer.status in (401, 403):
        return SyncFailed(
            "sig_verification_failed",
            "The app refused our signature.",
            "Set INNGEST_SIGNING_KEY of the app to this environment's signing key, and check the clock of both machines.",
        )
    if "x-inngest-sdk" not in answer.headers and "x-inngest-sdk-handled" not in answer.headers:
        if answer.status == 404:
            return SyncFailed(
                "http_not_ok",
                "There is nothing at this path (404).",
                "Check the path; SDKs serve /api/inngest by default.",
                {"status": 404},
            )
        return SyncFailed(
            "not_sdk",
            f"Something answered (HTTP {answer.status}), but no SDK.",
            "Check that the URL is the one where the SDK is served.",
            {"status": answer.status},
        )
    if answer.headers.get("x-inngest-sync-kind") == "in_band" and answer.status == 200:
        return await _in_band(pool, scope, url, answer, keys, on_step)
    return await _out_of_band(pool, scope, url, deploy_id, answer, began)


async def _put(caller: Caller, url: str, headers: dict[str, str], body: bytes, keys: list[str]) -> Answer:
    """Ask with the first key the app accepts: during a rotation it may know the next one only."""

    async def ask() -> Answer:
        return await caller.call("PUT", url, headers=headers, body=body, timeout_s=_PATIENCE_S)

    for key in keys[:-1]:
        headers["x-inngest-signature"] = sign(key, body, int(time.time()))
        if (answer := await ask()).status not in (401, 403):
            return answer
    if keys:
        headers["x-inngest-signature"] = sign(keys[-1], body, int(time.time()))
    return await ask()


async def _in_band(
    pool: Pool, scope: Scope, url: str, answer: Answer, keys: list[str], on_step: Callable[[str], None]
) -> Synced | SyncFailed:
    signature = answer.headers.get("x-inngest-signature")
    if keys and not (signature and verify_response(signature, answer.body, keys=keys, now=int(time.time()))):
        return SyncFailed(
            "sig_verification_failed",
            "The app's answer is not signed with this environment's key.",
            "Set INNGEST_SIGNING_KEY of the app to this environment's signing key.",
        )
    on_step("signed")
    try:
        registration = read_registration(answer.body, checks=await checks_of(pool, scope), url=url)
        synced = await register(pool, scope, registration, kind="in_band")
    except RegistrationRefused as refused:
        return SyncFailed(refused.code, refused.message, FIX_FUNCTIONS, refused.details)
    on_step("found")
    return synced


async def _out_of_band(
    pool: Pool, scope: Scope, url: str, deploy_id: str, answer: Answer, began: datetime
) -> Synced | SyncFailed:
    """What the app's own post brought. It is known by the `deployId` that SDKs echo (protocol 7.1); where one does not, by
    the address: other apps of the environment may sync at the same time.
    """
    sync_id, place = _sync_id(scope, deploy_id), same_place(url)
    deadline = time.monotonic() + (_PATIENCE_S if answer.status < 300 else 1.0)
    while True:
        async with pool.acquire(timeout=5) as connection:
            rows = await fetch(connection, named("sync", "latest"), environment=scope.environment_id, since=began)
        found = next((row for row in rows if row["id"] == sync_id), None) or next(
            (row for row in rows if same_place(row["url"]) == place), None
        )
        if found is not None and found["status"] == "failed":
            return SyncFailed(found["error_code"], found["error"], found["fix"] or FIX_FUNCTIONS, is_told=True)
        if found is not None and found["app_id"]:
            return Synced(found["id"], found["app_id"], found["status"] == "succeeded")
        if time.monotonic() > deadline:
            return SyncFailed(
                "http_not_ok",
                f"The app answered HTTP {answer.status}, and no functions arrived.",
                "Check that INNGEST_BASE_URL (or INNGEST_DEV) of the app points here.",
                {"status": answer.status},
            )
        await asyncio.sleep(0.2)


def _short(text: str) -> str:
    return text[:2000].replace("\x00", "\ufffd").encode(errors="replace").decode()


async def _now(pool: Pool) -> datetime:
    async with pool.acquire(timeout=5) as connection:
        now: datetime = await connection.fetchval("select clock()")
        return now
