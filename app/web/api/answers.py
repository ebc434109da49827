"""The shape of what our own API answers: `{"data", "metadata"}` (protocol 16.1)."""

from datetime import UTC, datetime

import msgspec
from litestar import Response

JSON = "application/json"


def answer(data: object, *, status: int = 200, **more: object) -> Response[bytes]:
    """An answer that worked; `more` stands beside the data, as the `page` of lists does."""
    metadata = {"fetchedAt": shown_time(datetime.now(UTC)), "cachedUntil": None}
    body = msgspec.json.encode({"data": data, "metadata": metadata, **more})
    return Response(body, status_code=status, media_type=JSON)


def shown_time(at: datetime | None) -> str | None:
    """A moment as RFC 3339."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")
