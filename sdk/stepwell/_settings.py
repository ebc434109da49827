"""Where the server is and how we prove ourselves to it, from arguments and the environment (protocol 2).

Every variable may be written `INNGEST_X`, as all SDKs of this protocol do, or `STEPWELL_SDK_X`, which wins when both are
set. Plain `STEPWELL_X` is not read: those are settings of the server, which may share a machine with the app.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stepwell._errors import ConfigError

#: Where `stepwell dev` listens.
DEV_ORIGIN = "http://127.0.0.1:8288"

#: What SDKs send as event key in dev mode, where any key is taken (protocol 2.3).
NO_EVENT_KEY = "NO_EVENT_KEY_SET"

_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}


@dataclass(frozen=True)
class Settings:
    """What one client needs to know to talk to the server, resolved once."""

    is_dev: bool
    api_origin: str
    event_origin: str
    event_key: str | None = field(repr=False)
    signing_keys: list[str] = field(repr=False)
    """The primary key first, then the fallback if there is one; both are accepted."""
    env: str | None
    serve_origin: str | None
    serve_path: str | None
    allow_in_band_sync: bool
    allow_unsigned_sync: bool

    @property
    def kind(self) -> str:
        """The word for this mode on the wire."""
        return "dev" if self.is_dev else "cloud"

    def require_signing_key(self) -> None:
        """Refuse to serve without a key when calls must be signed."""
        if not self.is_dev and not self.signing_keys:
            raise ConfigError(
                "INNGEST_SIGNING_KEY is not set. Copy it from the environment's keys page, "
                "or set INNGEST_DEV=1 while developing on your own machine."
            )

    def require_event_key(self) -> str:
        """The key that goes into the path of the event API."""
        if self.event_key:
            return self.event_key
        if self.is_dev:
            return NO_EVENT_KEY
        raise ConfigError("INNGEST_EVENT_KEY is not set, so events cannot be sent. Copy it from the keys page.")


def resolve(
    *,
    env: str | None = None,
    is_dev: bool | None = None,
    base_url: str | None = None,
    event_key: str | None = None,
    signing_key: str | None = None,
    signing_key_fallback: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settle every setting: an argument wins over a variable, a variable over the default. ConfigError says what is wrong."""
    variables = os.environ if environ is None else environ

    def read(name: str) -> str | None:
        return variables.get(f"STEPWELL_SDK_{name}") or variables.get(f"INNGEST_{name}") or None

    dev, dev_url = _read_dev(read("DEV"))
    dev = is_dev if is_dev is not None else dev
    base = base_url or read("BASE_URL") or (dev_url if dev else None)
    default = DEV_ORIGIN if dev else None
    keys = [signing_key or read("SIGNING_KEY"), signing_key_fallback or read("SIGNING_KEY_FALLBACK")]
    return Settings(
        is_dev=dev,
        api_origin=_origin("INNGEST_API_BASE_URL", base_url or read("API_BASE_URL") or base or default),
        event_origin=_origin("INNGEST_EVENT_API_BASE_URL", base_url or read("EVENT_API_BASE_URL") or base or default),
        event_key=event_key or read("EVENT_KEY"),
        signing_keys=[key for key in keys if key],
        env=env or read("ENV"),
        serve_origin=read("SERVE_ORIGIN") or read("SERVE_HOST"),
        serve_path=read("SERVE_PATH"),
        allow_in_band_sync=_read_flag("ALLOW_IN_BAND_SYNC", read("ALLOW_IN_BAND_SYNC")),
        allow_unsigned_sync=_read_flag("ENABLE_UNAUTHED_SYNC", read("ENABLE_UNAUTHED_SYNC")),
    )


def _read_dev(value: str | None) -> tuple[bool, str | None]:
    """`INNGEST_DEV` is a yes, a no, or the address of the dev server."""
    if value is None or value.lower() in _NO:
        return False, None
    if value.lower() in _YES:
        return True, None
    if urlsplit(value).scheme in ("http", "https"):
        return True, value
    raise ConfigError(f"INNGEST_DEV is {value!r}: write 1, 0 or the address of the dev server, such as {DEV_ORIGIN}.")


def _read_flag(name: str, value: str | None) -> bool:
    if value is None or value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise ConfigError(f"INNGEST_{name} is {value!r}: write 1 or 0.")


def _origin(name: str, value: str | None) -> str:
    if value is None:
        raise ConfigError(
            "INNGEST_BASE_URL is not set: write the address of your Stepwell server, such as https://stepwell.example.com, "
            "or set INNGEST_DEV=1 while developing on your own machine."
        )
    address = value if "://" in value else f"https://{value}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{name} or INNGEST_BASE_URL is {value!r}: write an address with http:// or https://.")
    return address.rstrip("/")
