"""What an htmx 4 request says about itself, and the answers only htmx understands.

Written for 4.0.1: `HX-Source` and `HX-Request-Type` do not exist in older versions, and helpers made for those read
headers that 4.x no longer sends.
"""

from collections.abc import Mapping
from dataclasses import dataclass

#: Pages and fragments share an address, so caches must keep them apart, and nobody else may keep them at all.
PRIVATE = {"Cache-Control": "private, no-store", "Vary": "HX-Request, HX-Request-Type, Cookie"}


@dataclass(frozen=True, slots=True)
class Hx:
    """How the page asks.

    `is_partial`: a fragment for `target` is wanted, not the page; false for boosted visits (they replace the body)
    and when the browser goes back (the whole page is fetched again).
    `target` is `tag#id` as htmx sends it, or empty.
    """

    is_htmx: bool
    is_partial: bool
    is_boosted: bool
    is_history: bool
    target: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Hx":
        """Read the request's headers; names are compared in lower case."""
        is_htmx = headers.get("hx-request") == "true"
        is_history = headers.get("hx-history-restore-request") == "true"
        return cls(
            is_htmx=is_htmx,
            is_partial=is_htmx and not is_history and headers.get("hx-request-type") == "partial",
            is_boosted=headers.get("hx-boosted") == "true",
            is_history=is_history,
            target=headers.get("hx-target", ""),
        )

    def wants(self, element_id: str) -> bool:
        """True when this request will swap exactly the element with that id."""
        return self.is_partial and self.target.partition("#")[2] == element_id


def redirect(path: str) -> dict[str, str]:
    """Headers that make htmx visit a path of ours; used with 401 when a session has ended."""
    return {"HX-Redirect": path}


def push_url(path: str) -> dict[str, str]:
    """Headers that put a path into the address bar."""
    return {"HX-Push-Url": path}
