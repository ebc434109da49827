"""Addresses of apps: one form for storing and calling, one for telling whether two mean the same place."""

from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

#: Query parameters that belong to the protocol, not to the app's address (protocol 7.1).
PROTOCOL_PARAMETERS: Final = frozenset({"fnId", "stepId", "step", "probe", "deployId"})

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LOCAL = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104 - compared with, never bound to


def is_app_address(url: str) -> bool:
    """Whether an app could live there: one of four schemes and a host, no user name and no control characters."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    has_place = parts.scheme.lower() in _DEFAULT_PORTS and bool(parts.hostname)
    return has_place and parts.username is None and url.isprintable() and " " not in url


def normalise_url(url: str) -> str:
    """The address as it is stored and called: without the protocol's parameters, fragment and default port, scheme and
    host in lower case. The host stays as the developer wrote it, because that is where the app listens.

    The address must be one `is_app_address` accepts; another is given back as it is.
    """
    if not is_app_address(url):
        return url
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    scheme = parts.scheme.lower()
    port = parts.port
    place = host if port is None or port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
    kept = [
        (key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in PROTOCOL_PARAMETERS
    ]
    return urlunsplit((scheme, place, parts.path, urlencode(kept), ""))


def same_place(url: str) -> str:
    """A text that is equal for addresses of one place: all names of this machine count as one (protocol 7.2)."""
    parts = urlsplit(normalise_url(url))
    if parts.hostname not in _LOCAL:
        return urlunsplit(parts)
    place = "localhost" if parts.port is None else f"localhost:{parts.port}"
    return urlunsplit(parts._replace(netloc=place))


def call_url(base_url: str, fn_slug: str, step_id: str) -> str:
    """Where to send a call: the registered address with `fnId` and `stepId` set, whatever it had (go writes `step=`)."""
    return _address(base_url, fn_slug) + step_id


@lru_cache(maxsize=1024)
def _address(base_url: str, fn_slug: str) -> str:
    """Everything of a call's address but the step. The same few for ever, so they are remembered."""
    bare = normalise_url(base_url)
    joint = "&" if "?" in bare else "?"
    return f"{bare}{joint}fnId={quote(fn_slug, safe='')}&stepId="
