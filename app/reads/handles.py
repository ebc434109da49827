"""What stands for an app or a function in an address: its name where that is plain, else its id.

Names come from SDKs and may hold slashes, spaces or anything else; an address with a database key in it would be the
other way, but these ids are public: SDKs and the REST API know them.
"""

import re
from uuid import UUID

#: Words that are pages of their own below `/apps` and `/functions`.
_TAKEN = frozenset({"new", "send", "volumes", ".", ".."})
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,254}")


def handle_of(name: str | None, id: UUID) -> str:  # noqa: A002 - the column it comes from
    """The part of an address that names it; `find` statements take either."""
    if name is None or name in _TAKEN or not _PLAIN.fullmatch(name):
        return str(id)
    return name


def id_in(handle: str) -> UUID | None:
    """The id, when the handle is one."""
    try:
        return UUID(handle) if len(handle) == 36 else None
    except ValueError:
        return None
