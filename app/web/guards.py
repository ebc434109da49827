"""Who may: from a browser's cookie to a person in an account, from a slug to an environment, from a role to a yes.

Routers of pages use `guards=[require_person]`; their handlers ask for `principal: NamedDependency[Principal]` and,
below `/env/{slug:str}`, for `environment: NamedDependency[Environment]`.
`require_person` also holds every unsafe method to the two proofs against forged requests: the browser says that the
request comes from our own pages, and it brings the session's token (form field `csrf_token` or header `x-csrf-token`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from app.accounts import login
from app.accounts.bootstrap import DEV_EMAIL, DEV_USER_ID
from app.domain.errors import Refused
from app.domain.ids import DEV_ACCOUNT_ID, AccountId, UserId
from app.store import accounts, audit
from app.store.accounts import Environment
from app.store.audit import Actor
from app.store.db import tenant
from app.web.site import Site, site_of

AnyConnection = ASGIConnection[Any, Any, Any, Any]
AnyRequest = Request[Any, Any, Any]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
ROLES = ("viewer", "member", "admin", "owner")
"""From the least to the most; each may do what those before it may."""
LONGEST_NEXT = 2000
_KNOWN_AS = "principal"
_PRIVATE_ENDINGS = frozenset({"localhost", "local", "internal", "lan", "test"})


@dataclass(frozen=True, slots=True)
class Principal:
    """The person who asks, in the account they look at. `csrf_token` is what their forms must carry.

    `is_operator`: they run this installation and may see how all of it is (not what is in it).
    """

    user_id: UserId
    email: str
    name: str
    account_id: AccountId
    account_name: str
    role: str
    csrf_token: str = ""
    is_operator: bool = False
    #: What everybody in the account is told on every page: a payment that failed, an allowance used up.
    notice: str = ""

    def may(self, role: str) -> bool:
        """Say whether the person has at least this role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def actor(self, network: str = "") -> Actor:
        """The person as the audit log knows them."""
        return Actor(self.email, self.user_id, network)


DEVELOPER = Principal(DEV_USER_ID, DEV_EMAIL, "Developer", DEV_ACCOUNT_ID, "Development", "owner", is_operator=True)
"""Everybody in `stepwell dev`, where nobody signs in."""


class LoginNeeded(Refused):
    """Please sign in."""

    def __init__(self, next_path: str = "") -> None:
        super().__init__("login_needed", details={"next": next_path} if next_path else None)


class Forged(Refused):
    """The form was not sent from Stepwell's own page, or is too old. Load the page again and repeat."""

    def __init__(self) -> None:
        super().__init__("csrf_failed")


class HostUnknown(Refused):
    """In dev mode Stepwell answers under this machine's own names only. Set STEPWELL_BASE_URL to use this one."""

    def __init__(self) -> None:
        super().__init__("host_unknown")


class RoleTooLow(Refused):
    """Your role in this organization does not allow this. Ask an owner or admin."""

    def __init__(self) -> None:
        super().__init__("forbidden")


class NotFound(Refused):
    """There is nothing here, or it is not yours to see."""

    def __init__(self) -> None:
        super().__init__("not_found")


async def find_principal(connection: AnyConnection) -> Principal | None:
    """Find who asks, once per request; none when nobody is signed in."""
    if _KNOWN_AS in connection.scope["state"]:
        known: Principal | None = connection.scope["state"][_KNOWN_AS]
        return known
    site = site_of(connection.app)
    principal = DEVELOPER if site.is_dev else await _signed_in(connection, site)
    connection.scope["state"][_KNOWN_AS] = principal
    return principal


async def require_person(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Guard: somebody is signed in, and an unsafe request is theirs. Raises `LoginNeeded`, `Forged`, `HostUnknown`."""
    site = site_of(connection.app)
    if site.is_dev and not is_own_host(connection.headers.get("host", ""), site.base_url):
        raise HostUnknown
    await require_same_origin(connection, _handler)
    principal = await find_principal(connection)
    if principal is None:
        raise LoginNeeded(_path_to_come_back_to(connection))
    if _method(connection) in SAFE_METHODS or site.is_dev:
        return
    if not await _brings_token(connection, principal):
        raise Forged


async def require_same_origin(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Guard for unsafe requests before anybody is signed in: the browser must not say they come from elsewhere."""
    if _method(connection) in SAFE_METHODS:
        return
    if not is_same_origin(
        site=connection.headers.get("sec-fetch-site"),
        origin=connection.headers.get("origin"),
        host=connection.headers.get("host", ""),
        base_url=site_of(connection.app).base_url,
    ):
        raise Forged


def require_role(role: str) -> Callable[[AnyConnection, BaseRouteHandler], Awaitable[None]]:
    """Make a guard that lets in who has at least this role; a refusal is noted in the account's audit log."""

    async def guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
        principal = await find_principal(connection)
        if principal is None:
            raise LoginNeeded
        if principal.may(role):
            return
        async with tenant(site_of(connection.app).pages, principal.account_id, principal.user_id) as conn:
            actor = principal.actor(network_of(connection))
            detail = {"route": str(connection.scope.get("path_template", "")), "needs": role, "has": principal.role}
            await audit.insert_entry(conn, principal.account_id, actor, "role.refused", detail=detail)
        raise RoleTooLow

    return guard


async def provide_principal(request: AnyRequest) -> Principal:
    """Dependency `principal`; raises `LoginNeeded` where the guard is missing."""
    principal = await find_principal(request)
    if principal is None:
        raise LoginNeeded(_path_to_come_back_to(request))
    return principal


async def provide_environment(
    principal: NamedDependency[Principal], slug: FromPath[str], site: NamedDependency[Site]
) -> Environment:
    """Dependency `environment` for paths with `{slug:str}`: one of the person's own account, else not found."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        environment = await accounts.find_environment(conn, principal.account_id, slug)
    if environment is None:
        raise NotFound
    return environment


DEPENDENCIES: dict[str, Provide] = {
    "principal": Provide(provide_principal),
    "environment": Provide(provide_environment),
}
"""For the application: looked up only for handlers that ask for them."""


def is_same_origin(*, site: str | None, origin: str | None, host: str, base_url: str) -> bool:
    """Say whether an unsafe request may come from our own pages.

    `site` is `Sec-Fetch-Site`, which browsers send over TLS and on localhost; else `Origin` decides, which must be the
    configured address or the one the request went to. Programs send neither; they hold no one's cookies.
    """
    if site is not None:
        return site in {"same-origin", "none"}
    if origin is None:
        return True
    asked = urlsplit(origin)
    own = urlsplit(base_url)
    if asked.scheme not in {"http", "https"} or not asked.netloc:
        return False
    return (asked.scheme, asked.netloc) == (own.scheme, own.netloc) or (
        asked.netloc == host and asked.scheme == own.scheme
    )


def is_own_host(host: str, base_url: str) -> bool:
    """Say whether a `Host` can only mean this machine or its neighbours.

    Where nobody signs in, a page of a stranger could let its own name point here and read everything; but it cannot
    own an address, a name without dots, or one of the endings that public name servers do not serve.
    """
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    if name == urlsplit(base_url).hostname or "." not in name or name.rpartition(".")[2] in _PRIVATE_ENDINGS:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def local_path(text: str | None, default: str = "/") -> str:
    """A path of ours to go to next; anything that could lead elsewhere, or back to the login, gives the default."""
    if not text or len(text) > LONGEST_NEXT or not text.startswith("/") or text.startswith("//"):
        return default
    if "\\" in text or not text.isprintable():
        return default
    path = urlsplit(text).path
    return default if path in {"/login", "/logout"} else text


def network_of(connection: AnyConnection) -> str:
    """The network the client is in. Its address is the peer's; the server trusts forwarded ones only from its proxy."""
    client = connection.client
    return login.network_of(client.host if client else "")


def session_id_of(connection: AnyConnection) -> str | None:
    """The session id in the browser's cookie, unchecked."""
    return connection.cookies.get(site_of(connection.app).cookie_name)


async def _signed_in(connection: AnyConnection, site: Site) -> Principal | None:
    session_id = session_id_of(connection)
    if not session_id or len(session_id) > 200:
        return None
    session = await login.find_session(site.pages, session_id)
    if session is None:
        return None
    return Principal(
        session.user_id,
        session.email,
        session.name,
        session.account_id,
        session.account_name,
        session.role,
        session.csrf_token,
        session.email.lower() in site.operators if site.operators is not None else session.role == "owner",
        session.notice,
    )


async def _brings_token(connection: AnyConnection, principal: Principal) -> bool:
    token = connection.headers.get("x-csrf-token", "")
    if not token and isinstance(connection, Request):
        content_type = connection.headers.get("content-type", "")
        if content_type.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
            field = (await connection.form()).get("csrf_token")
            token = field if isinstance(field, str) else ""
    return login.is_same_token(token, principal.csrf_token)


def _method(connection: AnyConnection) -> str:
    return str(connection.scope.get("method", "GET"))


def _path_to_come_back_to(connection: AnyConnection) -> str:
    if _method(connection) != "GET":
        return ""
    query = connection.scope["query_string"].decode("latin-1")
    return local_path(connection.scope["path"] + (f"?{query}" if query else ""), default="")
