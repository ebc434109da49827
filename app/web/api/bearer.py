"""Whose request is it: the bearer token of an SDK or a program (protocol 4.5)."""

from typing import Any

from litestar import Request
from litestar.di import NamedDependency, Provide

from app.domain.errors import Refused
from app.domain.scope import Scope
from app.web.api.rate import TooOften
from app.web.headers import tell_usage
from app.web.site import Site


class Unauthenticated(Refused):
    """The key is missing or not known here. Send `Authorization: Bearer <API key, or hash of the signing key>`."""

    def __init__(self) -> None:
        super().__init__("unauthenticated")


async def provide_scope(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> Scope:
    """Dependency `tenant_scope`: the tenant whose signing key the request proves. In dev mode every request is the developer's."""
    scope = await site.bearers.find_header(request.headers.get("authorization"))
    if scope is None:
        raise Unauthenticated
    return await site.branches.find(scope, request.headers.get("x-inngest-env"))


async def provide_sync_scope(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> Scope:
    """Dependency `tenant_scope` of what registers functions: a branch that is named for the first time is made."""
    scope = await site.bearers.find_header(request.headers.get("authorization"), takes_api_keys=False)
    if scope is None:
        raise Unauthenticated
    return await site.branches.for_sync(scope, request.headers.get("x-inngest-env"))


async def provide_counted_scope(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> Scope:
    """Dependency `tenant_scope` of what programs ask: as often as the plan allows (L12). Raises `TooOften`."""
    scope = await provide_scope(request, site)
    limit = (await site.plans.of(scope.account_id)).api_rate
    if limit is not None:
        passes, usage = site.api_rate.ask(request.headers.get("authorization", ""), limit)
        tell_usage(request.scope, usage.headers)
        if not passes:
            raise TooOften(usage)
    return scope


SYNCING: dict[str, Provide] = {"tenant_scope": Provide(provide_sync_scope)}
"""For `/fn/register` and syncs asked for by API."""
WITH_KEY: dict[str, Provide] = {"tenant_scope": Provide(provide_scope)}
"""For what SDKs call in the middle of a run: it is never refused for being asked often."""
COUNTED: dict[str, Provide] = {"tenant_scope": Provide(provide_counted_scope)}
"""For everything else."""
