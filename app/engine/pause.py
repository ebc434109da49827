"""Stops functions and apps for a while or for good (feature-semantics A3, A4).

                     new events                    runs that are there
    paused           no run, a disposition says so no call; items are kept and go on in their order after `resume`;
                                                   cancelled after seven days, or at once, if asked for
    app archived     no run                        go on: their app is still called
    function archived, or removed by a sync        end at their next call with `function_removed`

A call in flight is never stopped. Timers of paused runs still fire; what follows them waits. Every process sees a
change within a second: each call asks a view of the environment that is at most that old.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import AppId, FunctionId
from app.domain.scope import Scope
from app.engine.orders import insert
from app.store.db import Pool
from app.store.named import fetch, named

#: How long the runs of a paused function wait before they are cancelled, unless told otherwise.
PATIENCE = timedelta(days=7)


async def pause_function(
    pool: Pool, scope: Scope, function_id: FunctionId, *, cancel_after: timedelta | None = PATIENCE
) -> bool:
    """Stop calling a function. Its open runs are cancelled `cancel_after` from now, 0 for at once, None for never.

    False when it is paused already, or nobody's here.
    """
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        rows = await fetch(connection, named("pause", "pause"), function=function_id, environment=scope.environment_id)
        if not rows:
            return False
        row = rows[0]
        if cancel_after is not None:
            await insert(
                connection,
                scope,
                app_id=row["app_id"],
                function_id=function_id,
                slug=row["slug"],
                app_name=row["app_name"],
                after=None,
                before=row["now"],
                expression=None,
                cause="paused",
                due_at=row["now"] + cancel_after,
            )
        await _changed(connection, scope)
    return True


async def resume_function(pool: Pool, scope: Scope, function_id: FunctionId) -> list[UUID] | None:
    """Call the function again; the lanes that have work now, for the bell. None when it was not paused."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        if not await fetch(
            connection, named("pause", "resume"), function=function_id, environment=scope.environment_id
        ):
            return None
        await fetch(connection, named("pause", "withdraw_orders"), function=function_id)
        lanes = await fetch(connection, named("pause", "unpark"), function=function_id)
        await _changed(connection, scope)
    return [row["id"] for row in lanes]


async def archive_app(pool: Pool, scope: Scope, app_id: AppId) -> bool:
    """Start nothing of the app any more; its runs go on. False when there is nothing to archive."""
    return await _mark(pool, scope, "archive_app", app=app_id)


async def unarchive_app(pool: Pool, scope: Scope, app_id: AppId) -> bool:
    """Let the app's functions be started again."""
    return await _mark(pool, scope, "unarchive_app", app=app_id)


async def archive_function(pool: Pool, scope: Scope, function_id: FunctionId) -> bool:
    """Take a function out of its app, as if the app had stopped to register it."""
    return await _mark(pool, scope, "archive_function", function=function_id)


async def _mark(pool: Pool, scope: Scope, statement: str, **which: Any) -> bool:
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        if not await fetch(connection, named("pause", statement), environment=scope.environment_id, **which):
            return False
        await _changed(connection, scope)
    return True


async def _changed(connection: Any, scope: Scope) -> None:
    await fetch(connection, named("functions", "raise_version"), environment=scope.environment_id)
