"""What every page's frame needs: who looks, at which environment; and the links of the side bar.

The theme needs nothing from here: `document.html` reads its cookie.
"""

from dataclasses import dataclass
from typing import Any

from app.store.accounts import Environment
from app.web.guards import Principal


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the navigation; `section` is what a page names itself by."""

    section: str
    words: str
    icon: str
    path: str


#: The side bar, group by group. Sections appear here when their page does.
_GROUPS: tuple[tuple[str, tuple[Link, ...]], ...] = (("Observe", (Link("runs", "Runs", "workflow", "runs"),)),)


def frame(principal: Principal, environment: Environment, section: str) -> dict[str, Any]:
    """The template variables of `base.html`; pages add their own."""
    return {
        "principal": principal,
        "environment": environment,
        "section": section,
        "groups": _GROUPS,
        "csrf": principal.csrf_token,
    }
