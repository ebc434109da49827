"""Ids in paths: malformed ones and foreign ones look the same as unknown ones (reliability-security 4 B)."""

from app.domain.errors import Refused
from app.domain.ids import EventId, RunId, parse_ulid

_LONGEST_NAME = 512


class NotFound(Refused):
    """There is nothing with this id, or it is not yours to see."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__("not_found", message)


def run_id_of(text: str) -> RunId:
    """The run a path names; raises NotFound for text that is no ULID."""
    found = parse_ulid(text)
    if found is None:
        raise NotFound("run not found")
    return RunId(found)


def event_id_of(text: str) -> EventId:
    """The event a path names; raises NotFound for text that is no ULID."""
    found = parse_ulid(text)
    if found is None:
        raise NotFound("event not found")
    return EventId(found)


def text_in_path(text: str) -> str:
    """A name in a path, to be looked up; raises NotFound for text that no name can be."""
    if not text or len(text) > _LONGEST_NAME or "\x00" in text:
        raise NotFound
    return text
