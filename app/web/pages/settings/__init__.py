"""Everything about oneself and one's organization: `/settings/…`. One module per tab."""

from litestar import Router

from app.web.guards import require_person
from app.web.pages.settings import api_keys, audit, methods, organization, profile, security, team

ROUTER = Router(
    path="/settings",
    route_handlers=[
        *profile.HANDLERS,
        *security.HANDLERS,
        *methods.HANDLERS,
        *team.HANDLERS,
        *api_keys.HANDLERS,
        *organization.HANDLERS,
        *audit.HANDLERS,
    ],
    guards=[require_person],
)
