"""Members, roles and invitations of the organization: `/settings/team`."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import members
from app.domain.errors import Refused
from app.domain.ids import UserId
from app.store import members as rows
from app.store.accounts import Account
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, require_role, session_id_of
from app.web.letterbox import nudge_post
from app.web.pages.settings.desk import around, not_in_dev, page, wrong_password
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@get("/team", name="team", guards=[not_in_dev], include_in_schema=False)
async def show_team(request: AnyRequest, principal: Who, site: Here) -> Template:
    """Who is in, and who is invited."""
    return await _render(request, principal, site)


@post("/team/invitations", guards=[not_in_dev, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def invite(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Invite an address. Where no mail is sent, the link stands on the page that answers, once."""
    form = await Fields.of(request)
    given = {"email": form.text("email"), "role": form.text("role")}
    try:
        async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
            link = await members.invite(
                conn,
                site.sealer,
                site.base_url,
                Account(principal.account_id, principal.account_name, ""),
                principal.actor(network_of(request)),
                **given,
                inviter_role=principal.role,
                sends_mail=site.sends_mail,
            )
    except Refused as refused:
        field = "role" if refused.code == "role_invalid" else "email"
        return await _render(request, principal, site, given=given, errors={field: refused.message})
    nudge_post(site)
    if site.sends_mail:
        return Redirect("/settings/team?done=invited", status_code=303)
    return await _render(request, principal, site, link=link, invited=given["email"])


@post(
    "/team/invitations/{invitation_id:str}/revoke",
    guards=[not_in_dev, require_role("admin")],
    request_max_body_size=LARGEST_FORM,
)
async def take_back(request: AnyRequest, invitation_id: FromPath[str], principal: Who, site: Here) -> Redirect:
    """End an invitation; its link is worth nothing from now on."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        actor = principal.actor(network_of(request))
        await members.take_back(conn, principal.account_id, actor, _id_of(invitation_id))
    return Redirect("/settings/team?done=uninvited", status_code=303)


@post("/team/{user_id:str}/role", guards=[not_in_dev, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def change_role(request: AnyRequest, user_id: FromPath[str], principal: Who, site: Here) -> Response[Any]:
    """Give somebody another role; making an owner takes one's password."""
    form = await Fields.of(request)
    role = form.text("role")
    try:
        if role == "owner" and (
            sentence := await wrong_password(
                site, principal, form.secret("password"), session_id=session_id_of(request)
            )
        ):
            return await _render(request, principal, site, errors={"password": sentence}, asked=user_id)
        async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
            actor = principal.actor(network_of(request))
            await members.change_role(
                conn, principal.account_id, actor, UserId(_id_of(user_id)), role, own_role=principal.role
            )
    except members.MemberUnknown:
        raise
    except Refused as refused:
        return await _render(request, principal, site, errors={"form": refused.message})
    return Redirect("/settings/team?done=role", status_code=303)


@post("/team/{user_id:str}/remove", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def remove(request: AnyRequest, user_id: FromPath[str], principal: Who, site: Here) -> Response[Any]:
    """Take somebody out, or leave oneself; it works at once."""
    found = UserId(_id_of(user_id))
    is_self = found == principal.user_id
    try:
        async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
            actor = principal.actor(network_of(request))
            await members.remove(conn, principal.account_id, actor, found, own_role=principal.role)
    except members.MemberUnknown:
        raise
    except Refused as refused:
        return await _render(request, principal, site, errors={"form": refused.message})
    return Redirect("/login" if is_self else "/settings/team?done=removed", status_code=303)


async def _render(
    request: AnyRequest,
    principal: Principal,
    site: Site,
    *,
    given: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    link: str = "",
    invited: str = "",
    asked: str = "",
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "team")
        listed = await rows.list_members(conn, principal.account_id)
        invitations = await rows.list_invitations(conn, principal.account_id) if principal.may("admin") else []
    context |= {
        "members": listed,
        "invitations": invitations,
        "roles": [role for role in reversed(members.ROLES) if principal.may(role)],
        "given": given or {},
        "errors": errors or {},
        "link": link,
        "invited": invited,
        "asked": asked,
        "sends_mail": site.sends_mail,
    }
    return page("team", context)


def _id_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound from None


HANDLERS = (show_team, invite, take_back, change_role, remove)
