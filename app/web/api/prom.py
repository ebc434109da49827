"""`GET /v1/prom/{env}`: the counters of an environment for its owner's Prometheus (protocol 16.3)."""

from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.scope import Scope
from app.reads.environment_metrics import is_of_scope, metrics_of_environment
from app.store.db import tenant
from app.web.api.bearer import COUNTED
from app.web.api.ids import NotFound, text_in_path
from app.web.site import Site

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@get("/v1/prom/{env:str}")
async def prom(env: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[str]:
    """Runs made and ended today, by function. The environment is that of the key, by id, slug or name."""
    named = text_in_path(env)
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        if not await is_of_scope(connection, tenant_scope, named):
            raise NotFound("environment not found")
        text = await metrics_of_environment(connection, tenant_scope)
    return Response(text, headers={"Content-Type": _TYPE})


ROUTER = Router(path="/", dependencies=COUNTED, route_handlers=[prom])
