"""The pages without the rest of the server: a small Litestar app for tests and for looking at pages.

Guards are replaced by providers of the same names that know one tenant; headers and policy are those of the product's
pages, so that a browser refuses here what it would refuse there.
"""

from collections.abc import Mapping
from typing import Any

from litestar import Litestar, Request, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery
from litestar.response import Template

from app.engine.clock import DatabaseClock
from app.store.accounts import Environment
from app.web import errors
from app.web.assets import Assets, serve_asset
from app.web.guards import Principal
from app.web.headers import CONTENT_POLICY
from app.web.live import Signals
from app.web.pages import (
    apps,
    bulk,
    error_groups,
    event_types,
    events,
    functions,
    overrides,
    overview,
    run_actions,
    runs,
)
from app.web.run_desk import RunDesk
from app.web.templates import template_config
from tests.world import Tenant


@get("/login", sync_to_thread=False)
def login_page(request: Request[Any, Any, State], failed: FromQuery[bool] = False) -> Template:
    """The sign-in page as its handler would render it, with errors on request."""
    errors: Mapping[str, str] = (
        {"email": "Enter an e-mail address, such as name@example.com.", "password": "Enter your password."}
        if failed
        else {}
    )
    context = {"errors": errors, "email": "", "next": "/", "has_sign_up": True, "done": "", "providers": ()}
    return Template("pages/auth/login.html", context=context)


@get("/sign-up", sync_to_thread=False)
def sign_up_page(request: Request[Any, Any, State], look: FromQuery[str] = "") -> Template:
    """The sign-up page as its handler would render it: `failed`, `closed`, or fresh."""
    errors = {"email": "Enter your e-mail address.", "password": "Use at least 12 characters."}
    context = {
        "given": {"organization": "Ann & Sons"} if look else {},
        "errors": errors if look == "failed" else {},
        "is_open": look != "closed",
        "providers": (),
    }
    return Template("pages/auth/sign_up.html", context=context)


@get("/broken", sync_to_thread=False)
def error_page(request: Request[Any, Any, State]) -> Template:
    """The error page."""
    context = {
        "status": 404,
        "title": "Nothing here",
        "message": "There is nothing here, or it is not yours to see.",
        "code": "not_found",
        "request_id": "01KB00000000000000000000",
    }
    return Template("pages/errors/error.html", context=context)


class QuietBell:
    """A bell nobody hears; remembers what was said."""

    def __init__(self) -> None:
        self.rings = 0
        self.published: list[tuple[str, str]] = []

    def ring(self, lanes: Any = None) -> None:
        """Count."""
        self.rings += 1

    async def wait(self, timeout: float) -> list[bytes]:
        """Give nothing."""
        return []

    async def subscribe(self, pattern: str) -> Any:
        """Hear nothing."""
        nobody: tuple[Any, ...] = ()
        for nothing in nobody:
            yield nothing

    def publish(self, channel: str, message: str) -> None:
        """Remember."""
        self.published.append((channel, message))


def make_app(
    pool: Any,
    tenant: Tenant,
    signals: Signals | None = None,
    *,
    engine_pool: Any = None,
    bell: QuietBell | None = None,
    nudges: list[Any] | None = None,
    role: str = "owner",
) -> Litestar:
    """The app for one signed-in tenant; `pool` is a page pool, `engine_pool` changes runs, `nudges` collects jobs."""
    assets = Assets()

    person = Principal(tenant.user_id, tenant.email, "Ada", tenant.account_id, tenant.account_name, role, "token")

    async def principal() -> Principal:
        return person

    def signed_in(app: Any) -> Any:
        async def handle(scope: Any, receive: Any, send: Any) -> None:
            # What guards of roles ask.
            scope.setdefault("state", {})["principal"] = person
            await app(scope, receive, send)

        return handle

    async def environment(slug: str) -> Environment:
        if slug != tenant.slug:
            raise NotFoundException
        return Environment(
            tenant.environment_id,
            tenant.account_id,
            tenant.name,
            tenant.slug,
            tenant.kind,
            1,
            None,
        )

    async def page_pool() -> Any:
        return pool

    alone = signals or Signals()
    desk = RunDesk(engine_pool, DatabaseClock(), bell or QuietBell(), (nudges if nudges is not None else []).append)

    async def provide_desk() -> Any:
        return desk

    async def no_site() -> Any:
        return None

    async def no_app_calls() -> Any:
        return None

    async def provide_signals() -> Signals:
        return alone

    return Litestar(
        route_handlers=[
            *runs.HANDLERS,
            *run_actions.HANDLERS,
            *bulk.HANDLERS,
            *(
                overview.HANDLERS
                + apps.HANDLERS
                + functions.HANDLERS
                + overrides.HANDLERS
                + error_groups.HANDLERS
                + events.HANDLERS
                + event_types.HANDLERS
            ),
            serve_asset,
            login_page,
            sign_up_page,
            error_page,
        ],
        dependencies={
            "principal": Provide(principal),
            "environment": Provide(environment),
            "page_pool": Provide(page_pool),
            "signals": Provide(provide_signals),
            "desk": Provide(provide_desk),
            # What these ask for others, who have a whole application: keys, outgoing calls.
            "site": Provide(no_site),
            "app_calls": Provide(no_app_calls),
        },
        template_config=template_config(assets),
        state=State({"assets": assets}),
        middleware=[signed_in],
        response_headers={"Content-Security-Policy": CONTENT_POLICY},
        exception_handlers=errors.HANDLERS,
        openapi_config=None,
        debug=True,
    )
