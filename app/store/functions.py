"""Apps and functions as people change them: paused or not, archived or not.

What an app registers is written by `engine/sync.py`. Every change here raises the environment's catalogue version, so
that processes that match events reload their view before the next one. Connections are a tenant's (`store.db.tenant`);
the caller notes the deed in the audit log of the same transaction.
"""

from app.domain.ids import AppId, EnvironmentId, FunctionId
from app.store.db import Connection


async def set_paused(
    conn: Connection, environment_id: EnvironmentId, function_id: FunctionId, *, is_paused: bool
) -> bool:
    """Pause a function or let it go on; false when it is so already, or is not there."""
    changed = await conn.fetchval(
        "update functions set paused_at = case when $3 then clock() end"
        " where environment_id = $1 and id = $2 and (paused_at is null) = $3 and archived_at is null returning true",
        environment_id,
        function_id,
        is_paused,
    )
    if changed:
        await _raise_version(conn, environment_id)
    return bool(changed)


async def set_archived(conn: Connection, environment_id: EnvironmentId, app_id: AppId, *, is_archived: bool) -> bool:
    """Archive an app, so that nothing starts its functions, or bring it back; false when it is so already."""
    changed = await conn.fetchval(
        "update apps set archived_at = case when $3 then clock() end"
        " where environment_id = $1 and id = $2 and (archived_at is null) = $3 returning true",
        environment_id,
        app_id,
        is_archived,
    )
    if changed:
        await _raise_version(conn, environment_id)
    return bool(changed)


async def _raise_version(conn: Connection, environment_id: EnvironmentId) -> None:
    await conn.execute(
        "update environments set catalogue_version = catalogue_version + 1 where id = $1", environment_id
    )
