"""Notes in the audit log what somebody did on a page, where the deed itself is not a row of the same transaction."""

from collections.abc import Mapping
from typing import Any

from litestar import Request

from app.store import audit
from app.store.accounts import Environment
from app.store.db import Pool, tenant
from app.web.guards import Principal, network_of


async def note(
    pool: Pool,
    request: Request[Any, Any, Any],
    principal: Principal,
    environment: Environment,
    action: str,
    *,
    subject: str,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write one line: who, from where, `action` as noun.verb, to what (`subject`)."""
    async with tenant(pool, principal.account_id, principal.user_id) as connection:
        await audit.insert_entry(
            connection,
            principal.account_id,
            principal.actor(network_of(request)),
            action,
            environment_id=environment.id,
            subject=subject,
            detail=detail,
        )
