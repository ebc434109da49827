"""Who is at the other end of a path, which decides the shape of errors and the headers of answers."""

from enum import StrEnum


class Audience(StrEnum):
    """Each has its own form of an error (protocol 5.3 and 16.1)."""

    EVENTS = "events"
    """Those who send events: `/e/…`."""
    SDK = "sdk"
    """SDKs: registration, state, runs, checkpoints, invoke."""
    API = "api"
    """Programs that use our own API, v2."""
    PROBE = "probe"
    """Load balancers and supervisors."""
    PERSON = "person"
    """Somebody with a browser: everything else."""


_FIRST_PARTS = {
    "e": Audience.EVENTS,
    "fn": Audience.SDK,
    "v0": Audience.SDK,
    "v1": Audience.SDK,
    "dev": Audience.SDK,
    "invoke": Audience.SDK,
    "v2": Audience.API,
    "api": Audience.API,
    "webhooks": Audience.API,
    "health": Audience.PROBE,
    "ready": Audience.PROBE,
    "metrics": Audience.PROBE,
}


def audience_of(path: str) -> Audience:
    """Say who asks for a path such as `/v1/runs/01…`."""
    if path.startswith("/dev/"):
        return Audience.PERSON  # below the SDKs' own /dev lie pages
    return _FIRST_PARTS.get(path[1:].partition("/")[0], Audience.PERSON)
