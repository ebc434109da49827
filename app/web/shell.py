"""What every page's frame needs: who looks, at which environment; and the links of the side bar.

The theme needs nothing from here: `document.html` reads its cookie. The list of the environment switcher is fetched
when somebody opens it (`pages/environments.py`), so that no page pays for it.
"""

from dataclasses import dataclass
from typing import Any

from app.store.accounts import Environment
from app.web.guards import DEVELOPER, Principal


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the navigation; `section` is what a page names itself by, `path` what follows `/env/{slug}/`."""

    section: str
    words: str
    icon: str
    path: str


_OVERVIEW = Link("overview", "Overview", "layout-dashboard", "")
_RUNS = Link("runs", "Runs", "workflow", "runs")
_EVENTS = Link("events", "Events", "zap", "events")
_ERRORS = Link("errors", "Errors", "octagon-x", "errors")
_APPS = Link("apps", "Apps", "boxes", "apps")
_FUNCTIONS = Link("functions", "Functions", "square-function", "functions")

#: The side bar, group by group. Sections appear here when their page does.
_GROUPS: tuple[tuple[str, tuple[Link, ...]], ...] = (
    ("Observe", (_OVERVIEW, _RUNS, _EVENTS, _ERRORS)),
    ("Code", (_APPS, _FUNCTIONS, Link("event-types", "Event types", "list-filter", "event-types"))),
    (
        "Connect",
        (
            Link("start", "Set-up guide", "book-open", "start"),
            Link("event-keys", "Event keys", "key-round", "keys/events"),
            Link("signing-keys", "Signing keys", "shield", "keys/signing"),
        ),
    ),
)
#: The bar at the bottom of small screens; the rest is behind "More".
_DOCK = (_OVERVIEW, _RUNS, _FUNCTIONS, _EVENTS)
_PATHS = {link.section: link.path for _, links in _GROUPS for link in links}


def frame(principal: Principal, environment: Environment, section: str) -> dict[str, Any]:
    """The template variables of `base.html`; pages add their own."""
    return {
        "principal": principal,
        "environment": environment,
        "section": section,
        "groups": _GROUPS,
        "dock": _DOCK,
        "csrf": principal.csrf_token,
        "is_dev": principal == DEVELOPER,
    }


def path_of(section: str) -> str:
    """Where a section lives below `/env/{slug}/`; what is not one (pages outside of environments) leads to the runs."""
    return _PATHS.get(section, _RUNS.path)


def pages_like(words: str) -> list[Link]:
    """The sections whose words have these in them; all of them for none."""
    return [link for _, links in _GROUPS for link in links if words.lower() in link.words.lower()]
