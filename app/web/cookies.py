"""The cookies Stepwell sets on people's browsers: who is signed in, and how they like to see the pages."""

from litestar.datastructures import Cookie

from app.accounts.login import ABSOLUTE
from app.accounts.providers import LASTS
from app.domain.ids import UserId
from app.store import accounts
from app.web.site import Site

_YEAR_S = 31_536_000


def session_cookie(site: Site, session_id: str, *, max_age: int = int(ABSOLUTE.total_seconds())) -> Cookie:
    """The cookie that carries a session id: for this host only, out of reach of scripts, `Secure` over TLS."""
    return Cookie(
        key=site.cookie_name,
        value=session_id,
        path="/",
        max_age=max_age,
        secure=site.is_https,
        httponly=True,
        samesite="lax",
    )


def journey_cookie(site: Site, browser: str) -> Cookie:
    """The cookie that binds journeys to login providers to this browser; `Lax`, for the way back comes from elsewhere."""
    return Cookie(
        key=site.journey_cookie_name,
        value=browser,
        path="/",
        max_age=int(LASTS.total_seconds()),
        secure=site.is_https,
        httponly=True,
        samesite="lax",
    )


def preference_cookies(site: Site, *, theme: str, time_zone: str, has_shortcuts: bool) -> list[Cookie]:
    """What the browser remembers for every page; the default of each is no cookie at all."""
    chosen = {"theme": theme, "zone": time_zone if time_zone == "local" else "", "keys": "" if has_shortcuts else "off"}
    return [
        Cookie(key=key, value=value, path="/", max_age=_YEAR_S if value else 0, samesite="lax", secure=site.is_https)
        for key, value in chosen.items()
    ]


async def cookies_of(site: Site, user_id: UserId) -> list[Cookie]:
    """The preferences of somebody who has just signed in; where they have none, what this browser remembers stays."""
    async with site.ingest.acquire(timeout=2) as conn:
        person = await accounts.find_person(conn, user_id)
    chosen = preference_cookies(
        site, theme=person.theme, time_zone=person.time_zone, has_shortcuts=person.has_shortcuts
    )
    return [cookie for cookie in chosen if cookie.value]
