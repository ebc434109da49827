"""The whole web application on a real database, with a few routes of its own to knock at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from litestar import Litestar, Request, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.testing import AsyncTestClient

from app.accounts.login import LoginLimits
from app.config import Settings, load
from app.domain.errors import Bug, Outside, Refused
from app.domain.scope import Scope
from app.main import create_app
from app.store.accounts import Environment
from app.web.guards import Principal, require_person, require_role
from app.web.site import Site
from tests.integration.accounts.world import BASE_URL, SECRET_KEY, CountingPasswords, Tenant

Client = AsyncTestClient[Litestar]
SECRET_TEXT = "what the customer wrote"


def settings_for(database: str, **more: str) -> Settings:
    """Settings of a web process on this database; Redis is a closed port, because nothing here may need it."""
    return load(
        {
            "DATABASE_URL": database,
            "REDIS_URL": "redis://127.0.0.1:1",
            "STEPWELL_SECRET_KEY": SECRET_KEY,
            "STEPWELL_BASE_URL": BASE_URL,
            "STEPWELL_MODE": "server",
        }
        | more
    )


@asynccontextmanager
async def running(settings: Settings, limits: LoginLimits | None = None) -> AsyncIterator[Client]:
    """Run the application with cheap passwords and the routes below."""
    app = create_app(settings, routers=[PAGES, MACHINES])
    site: Site = app.state.site
    site.passwords.close()
    app.state.site = Site(
        **{name: getattr(site, name) for name in Site.__slots__}
        | {"passwords": CountingPasswords(), "login_limits": limits or LoginLimits(per_network=100_000)}
    )
    async with AsyncTestClient(app, base_url=settings.base_url) as client:
        client.follow_redirects = False
        yield client


async def log_in(client: Client, tenant: Tenant) -> str:
    """Sign in; the client keeps the cookie. Gives the CSRF token."""
    client.cookies.clear()
    answer = await client.post("/login", data={"email": tenant["user"], "password": tenant["password"]})
    assert answer.status_code == 303, answer.text
    token: str = (await client.get("/whoami")).json()["csrf_token"]
    return token


@get("/whoami")
async def whoami(principal: NamedDependency[Principal]) -> dict[str, str]:
    """Tell who asks."""
    return {
        "email": principal.email,
        "account": str(principal.account_id),
        "role": principal.role,
        "csrf_token": principal.csrf_token,
    }


@post("/change", status_code=200)
async def change(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Read a form and change something."""
    return {"said": str((await request.form()).get("say", ""))}


@post("/admins-only", guards=[require_role("admin")], status_code=200)
async def admins_only() -> dict[str, str]:
    """Do what viewers may not."""
    return {"done": "yes"}


@get("/env/{slug:str}/name")
async def environment_name(environment: NamedDependency[Environment]) -> dict[str, str]:
    """Name the environment."""
    return {"name": environment.name, "id": str(environment.id)}


PAGES = Router("/", route_handlers=[whoami, change, admins_only, environment_name], guards=[require_person])

_FAULTS: dict[str, Exception] = {
    "key": Refused("event_key_invalid", "Event key not found"),
    "index": Refused("event_name_invalid", "event name is empty", {"index": 3}),
    "large": Refused("body_too_large", "Too large."),
    "rate": Refused("rate_limited", "Too many.", {"retry_after": 17}),
    "outside": Outside(retryable=True, code="storage_unavailable"),
    "broken": Outside(SECRET_TEXT, retryable=False),
    "bug": Bug(SECRET_TEXT, run_id=1),
    "crash": RuntimeError(SECRET_TEXT),
    "lost": asyncpg.ConnectionDoesNotExistError(SECRET_TEXT),
    "slow": asyncpg.QueryCanceledError(SECRET_TEXT),
    "closed": ConnectionRefusedError(SECRET_TEXT),
    "late": TimeoutError(),
    "sql": asyncpg.UndefinedTableError(SECRET_TEXT),
}


@get(["/v1/fail/{fault:str}", "/v2/fail/{fault:str}", "/fail/{fault:str}"])
async def fail(fault: FromPath[str]) -> None:
    """Fail as told."""
    raise _FAULTS[fault]


@get("/v1/whose/{key:str}")
async def whose_event_key(key: FromPath[str], site: NamedDependency[Site]) -> str:
    """Tell whose event key this is."""
    return _environment_of(await site.event_keys.find(key))


@get("/v1/whose")
async def whose_bearer(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> str:
    """Tell whose token this is."""
    return _environment_of(await site.bearers.find_header(request.headers.get("authorization")))


def _environment_of(scope: Scope | None) -> str:
    if scope is None:
        raise Refused("unauthenticated")
    return str(scope.environment_id)


MACHINES = Router("/", route_handlers=[fail, whose_event_key, whose_bearer])
