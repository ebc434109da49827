"""Signing keys of an environment and their rotation in four steps. `/env/{slug}/keys/signing`."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Template

from app.accounts import keys
from app.engine.rotation import Readiness, ask_apps
from app.store import keys as rows
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE
from app.web.secrets import Shown, as_text, back, key_id_of, page, reveal, wants_text
from app.web.shell import frame
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Here = NamedDependency[Site]

#: Apps that are asked whether they know a key; the plans allow fewer.
_MOST_APPS = 250


@get("/env/{slug:str}/keys/signing", name="signing_keys", include_in_schema=False)
async def signing_keys(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Template:
    """The current key, the stepper of a rotation, and the keys that ended; `?apps=1` asks the apps as well."""
    return await _render(request, principal, environment, site, is_asked="apps" in request.query_params)


@get("/env/{slug:str}/keys/signing/apps", name="key_readiness", include_in_schema=False)
async def readiness(principal: Who, environment: Where, site: Here) -> Template:
    """Step 3 as a fragment: which apps know the next key. Fetched by the page after it is there, for apps may be slow."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        live = await rows.list_live_signing_keys(conn, environment.id)
    _, waiting = _pair(live)
    if waiting is None:
        raise NotFound
    apps = await _ask_apps(principal, environment, site, waiting.id)
    context = frame(principal, environment, "signing-keys") | {"apps": apps, "waiting": waiting, "errors": {}}
    return Template("fragments/keys/apps.html", context=context, headers=PRIVATE)


@post("/env/{slug:str}/keys/signing", guards=[require_role("admin")], request_max_body_size=LARGEST_FORM)
async def create_signing_key(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any]:
    """Make the next key (the current one where there is none); one that waits already is enough."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        live = await rows.list_live_signing_keys(conn, environment.id)
        _, waiting = _pair(live)
        if waiting is not None:
            return back(environment, "signing", "created", waiting.id)
        actor = principal.actor(network_of(request))
        made = await keys.create_signing_key(conn, site.sealer, environment.scope, actor, kind=environment.kind)
    return back(environment, "signing", "created", made.id)


@post("/env/{slug:str}/keys/signing/{key_id:str}/reveal", guards=[require_role("member")], status_code=200)
async def reveal_signing_key(
    *, request: AnyRequest, key_id: FromPath[str], principal: Who, environment: Where, site: Here
) -> Response[Any]:
    """Answer the secret in the form that was asked for."""
    found = key_id_of(key_id)
    secret = await reveal(keys.reveal_signing_key, request, principal, environment, site, found)
    if wants_text(request):
        return as_text(secret)
    return await _render(request, principal, environment, site, shown=Shown(found, secret))


@post("/env/{slug:str}/keys/signing/block", guards=[require_role("member")], status_code=200)
async def rotation_block(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any]:
    """Both variables of a rotation, ready for an `.env` file: the next key, and the current one as fallback."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        current, waiting = _pair(await rows.list_live_signing_keys(conn, environment.id))
        if current is None or waiting is None:
            raise NotFound
        actor = principal.actor(network_of(request))
        old, new = [
            await keys.reveal_signing_key(conn, site.sealer, environment.scope, actor, key.id)
            for key in (current, waiting)
        ]
    return as_text(f"INNGEST_SIGNING_KEY={new}\nINNGEST_SIGNING_KEY_FALLBACK={old}\n")


@post("/env/{slug:str}/keys/signing/{key_id:str}/promote", guards=[require_role("admin")])
async def promote_signing_key(
    *, request: AnyRequest, key_id: FromPath[str], principal: Who, environment: Where, site: Here
) -> Response[Any]:
    """Sign with the next key from now on, once every app knows it, or when the environment's name is typed."""
    typed = (await Fields.of(request)).text("name")
    found = key_id_of(key_id)
    asked = await _ask_apps(principal, environment, site, found)
    if any(not app.knows for app in asked) and typed != environment.name:
        return await _render(
            request,
            principal,
            environment,
            site,
            errors={"name": f"Type {environment.name} to rotate although apps do not know the new key."},
        )
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await keys.promote_signing_key(conn, environment.scope, principal.actor(network_of(request)), found)
    return back(environment, "signing", "promoted", found)


@post("/env/{slug:str}/keys/signing/{key_id:str}/revoke", guards=[require_role("admin")])
async def revoke_signing_key(
    *, request: AnyRequest, key_id: FromPath[str], principal: Who, environment: Where, site: Here
) -> Response[Any]:
    """End a key that does not sign."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await keys.revoke_signing_key(conn, environment.scope, principal.actor(network_of(request)), key_id_of(key_id))
    return back(environment, "signing", "revoked", key_id_of(key_id))


async def _render(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    site: Site,
    *,
    shown: Shown | None = None,
    is_asked: bool = False,
    errors: dict[str, str] | None = None,
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        listed = await rows.list_signing_keys(conn, environment.scope)
        now = await conn.fetchval("select clock()")
        parent = await rows.parent_of(conn, environment.scope) if environment.kind == "branch" else None
    current, waiting = _pair(listed)
    context = frame(principal, environment, "signing-keys") | {
        "kind": "signing",
        "parent": parent,
        "keys": listed,
        "now": now,
        "current": current,
        "waiting": waiting,
        "former": [key for key in listed if key.state == "next" and key is not waiting],
        "revoked": [key for key in listed if key.state == "revoked"],
        "apps": await _ask_apps(principal, environment, site, waiting.id) if waiting and (is_asked or errors) else None,
        "errors": errors or {},
    }
    return page(request, context, shown)


def _pair(listed: list[rows.SigningKey]) -> tuple[rows.SigningKey | None, rows.SigningKey | None]:
    """The key that signs, and the one that is to follow it.

    A key that is only accepted and is older than the current one signed before: it is the former, not the next.
    """
    current = next((key for key in listed if key.state == "current"), None)
    following = [k for k in listed if k.state == "next" and (current is None or k.created_at >= current.created_at)]
    return current, following[-1] if following else None


async def _ask_apps(principal: Principal, environment: Environment, site: Site, key_id: UUID) -> list[Readiness]:
    """Ask every app of the environment whether it knows the key. No connection is held meanwhile."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        key = await rows.find_signing_key(conn, environment.scope, key_id)
        if key is None or key.state != "next":
            raise NotFound
        found = await conn.fetch(
            "select name, url from apps where environment_id = $1 and archived_at is null order by name limit $2",
            environment.id,
            _MOST_APPS,
        )
    secret = site.sealer.open(key.sealed, environment.scope)
    return await ask_apps(
        site.outgoing, [(row["name"], row["url"]) for row in found], secret, server_kind=site.server_kind
    )


ROUTER = Router(
    path="/",
    route_handlers=[
        signing_keys,
        readiness,
        create_signing_key,
        rotation_block,
        reveal_signing_key,
        promote_signing_key,
        revoke_signing_key,
    ],
    guards=[require_person],
)
