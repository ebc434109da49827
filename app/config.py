"""The settings of one process, read once from the environment and never changed.

Owns: the name, unit, range and default of every setting. Nothing else reads `os.environ` for a setting. Only the two
composition roots (`app.main`, `workers.main`) and the command line read this module; everything below them is handed
the values it needs. A wrong or missing value is refused at start with the variable's name and what was expected.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from app.domain.providers import Provider, ProvidersInvalid, parse_providers

T = TypeVar("T")

SECRET_KEY_MIN_CHARS = 32
"""Shorter secrets are guessable; `stepwell` itself generates 64 hexadecimal digits."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


class Mode(StrEnum):
    """How the process was started: what may be taken for granted about login, signatures and who else is around."""

    DEV = "dev"
    """A laptop: no login, no signatures, apps on loopback are found and called."""
    UP = "up"
    """One machine, supervised: login and signatures on."""
    SERVER = "server"
    """One of many processes on many machines: nothing is started for it."""


class LogFormat(StrEnum):
    """How log lines are written: for machines or for eyes."""

    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One setting that cannot be used: which, what was expected, what was found (secrets are never shown)."""

    variable: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.variable}: expected {self.expected}; found {self.found}."


class SettingRefused(Exception):
    """A setting is missing or wrong. The message names every variable concerned and what each expected."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__("\n".join(str(refusal) for refusal in refusals))
        self.refusals = refusals

    @property
    def variables(self) -> tuple[str, ...]:
        """Name the refused variables, in the order they were read."""
        return tuple(refusal.variable for refusal in self.refusals)


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """What is needed to sell plans: keys, the ids of prices by plan (monthly, by use or none), the name of the meter."""

    key: str
    webhook_secret: str
    prices: tuple[tuple[str, str, str | None], ...]
    meter: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process is told from outside. Times are `timedelta`, sizes and counts are plain numbers."""

    database_url: str
    """`postgresql://user:password@host:port/name`, as asyncpg takes it."""
    redis_url: str
    """`redis://`, `rediss://` or `unix://`; the server behind it may be absent or emptied at any time."""
    secret_key: str
    """At least 32 characters; encrypts stored keys and signs cookies. Losing it loses the stored keys."""
    base_url: str
    """Where people and apps reach this installation, without a slash at the end."""
    host: str
    """Address the web process listens on."""
    port: int
    """TCP port the web process listens on, 1 to 65535."""
    data_dir: Path
    """Folder of the embedded servers and what is remembered about them."""
    allow_private_apps: bool
    """Whether apps on loopback and private networks may be called. Always false when `hosted`."""
    hosted: bool
    """Whether this is the hosted service: billing on, private addresses refused whatever else is said."""
    sign_up: str
    """Who may make an organization on the pages: `open` (anybody), `first` (while there is none) or `closed`."""
    login_providers: tuple[Provider, ...]
    """Who else may say who somebody is, in the order of their buttons; none in `dev`, where nobody signs in."""
    smtp_url: str | None
    """The mail server, `smtp[s]://[user:password@]host[:port]`; none where Stepwell sends no mail."""
    mail_from: str
    """The address, with or without a name, that mails come from."""
    retry_delay: timedelta | None
    """Replaces the retry table, for development and tests; none keeps the table."""
    metrics: str
    """Who may read `/metrics`: `off` (nobody), `loopback` (this machine), else the token that must come as bearer."""
    otlp_endpoint: str
    """Base address of a collector of OpenTelemetry spans; empty sends none."""
    operators: tuple[str, ...]
    """E-mail addresses of people who may open `/operator`; empty: owners, unless strangers may sign up."""
    retention: timedelta | None
    """How long ended runs and events are kept on one's own machine, 1 to 3650 days; none is 30 days."""
    stripe: "StripeSettings | None"
    """How payments go, on the hosted service; none where nothing is sold."""
    mode: Mode
    workers: int
    """Worker processes that `up` and `dev` start, 1 to 64."""
    worker_name: str | None
    """Stable name of this worker's place, so that its next life may expire the leases of its last one at once."""
    max_calls: int
    """Calls one worker process has in flight at most, 1 to 10,000."""
    lease: timedelta
    """How long a worker's leases live without renewal, 3 s to 1 h."""
    call_timeout: timedelta
    """How long one call to an app may last, 1 s to 2 h."""
    stop_within: timedelta
    """How long a worker may take from the wish to stop to its end, 8 s to 2 h; calls in flight get most of it."""
    log_format: LogFormat
    log_level: str
    """`debug`, `info`, `warning` or `error`."""
    app_urls: tuple[str, ...]
    """Addresses of apps to sync in `dev`, as given with `--url`."""
    discovery: bool
    """Whether `dev` looks for apps on the usual local ports."""

    @property
    def lease_renewal(self) -> timedelta:
        """Say how often a worker renews its leases: a sixth of their life, so five renewals may fail."""
        return self.lease / 6

    @property
    def is_https(self) -> bool:
        """Say whether browsers reach us over TLS, which decides on `Secure` and `__Host-` cookies."""
        return self.base_url.startswith("https://")


@dataclass(frozen=True, slots=True)
class Known:
    """One documented setting: its name, what it expects, its default in words, and whether it is secret."""

    name: str
    expects: str
    default: str
    secret: bool = False


KNOWN: tuple[Known, ...] = (
    Known("DATABASE_URL", "a postgresql:// address with a database name", "embedded in dev and up", secret=True),
    Known("REDIS_URL", "a redis://, rediss:// or unix:// address", "embedded in dev and up", secret=True),
    Known(
        "STEPWELL_SECRET_KEY",
        f"at least {SECRET_KEY_MIN_CHARS} characters that nobody can guess",
        "generated and kept in dev and up",
        secret=True,
    ),
    Known("STEPWELL_BASE_URL", "an http:// or https:// address without path", "http://<host>:<port>"),
    Known("STEPWELL_HOST", "an address to listen on", "127.0.0.1"),
    Known("STEPWELL_PORT", "a whole number from 1 to 65535", "8288"),
    Known("STEPWELL_DATA_DIR", "a folder", ".stepwell"),
    Known("STEPWELL_ALLOW_PRIVATE_APPS", "1 or 0", "1 in dev, else 0"),
    Known("STEPWELL_HOSTED", "1 or 0", "0"),
    Known("STEPWELL_SIGN_UP", "one of open, first, closed", "first: until there is an account"),
    Known("STEPWELL_LOGIN_PROVIDERS", "a JSON list of sign-in providers, as docs/login.md shows", "none", secret=True),
    Known("STEPWELL_SMTP_URL", "an smtp:// or smtps:// address of a mail server", "no mail is sent", secret=True),
    Known("STEPWELL_MAIL_FROM", "an e-mail address, or a name with one in angle brackets", "stepwell@<host>"),
    Known("STEPWELL_RETRY_DELAY_MS", "a whole number of milliseconds from 0 to 86400000", "the retry table"),
    Known("STEPWELL_RETENTION_DAYS", "a whole number of days from 1 to 3650", "30"),
    Known("STEPWELL_METRICS", "off, loopback, or a token of 16 to 200 characters", "off", secret=True),
    Known("STEPWELL_OTLP_ENDPOINT", "an http:// or https:// address of a collector", "none"),
    Known("STEPWELL_OPERATORS", "e-mail addresses with commas between them", "owners, unless anybody may sign up"),
    Known(
        "STEPWELL_STRIPE_KEY",
        "a secret or restricted key of Stripe's; sells plans, with STEPWELL_HOSTED=1",
        "none",
        secret=True,
    ),
    Known("STEPWELL_STRIPE_WEBHOOK_SECRET", "the signing secret of the webhook", "needed with the key", secret=True),
    Known(
        "STEPWELL_STRIPE_PRICES", "plan=price or plan=price+price by use, with commas between", "needed with the key"
    ),
    Known("STEPWELL_STRIPE_METER", "the event name of the meter of executions", "stepwell_executions"),
    Known("STEPWELL_STRIPE_URL", "an http:// or https:// address to speak to instead of Stripe's", "Stripe's"),
    Known("STEPWELL_MODE", "one of dev, up, server (set by the command, not by hand)", "server"),
    Known("STEPWELL_WORKERS", "a whole number from 1 to 64", "half the processor cores, at least 1"),
    Known("STEPWELL_WORKER_NAME", "1 to 100 printable characters (set by the supervisor)", "none"),
    Known("STEPWELL_MAX_CALLS", "a whole number from 1 to 10000", "256"),
    Known("STEPWELL_LEASE_SECONDS", "a whole number of seconds from 3 to 3600", "30"),
    Known("STEPWELL_CALL_TIMEOUT_SECONDS", "a whole number of seconds from 1 to 7200", "7200"),
    Known("STEPWELL_STOP_SECONDS", "a whole number of seconds from 8 to 7200", "28; 15 in dev and up"),
    Known("STEPWELL_LOG_FORMAT", "one of json, console", "console in dev, else json"),
    Known("STEPWELL_LOG_LEVEL", "one of debug, info, warning, error", "info"),
    Known("STEPWELL_APP_URLS", "http:// or https:// addresses with commas between them (dev)", "none"),
    Known("STEPWELL_DISCOVERY", "1 or 0 (dev)", "1"),
)
"""Every setting there is; `docs/settings.md` and a test follow this table."""

_OTHERS = ("STEPWELL_SDK_", "STEPWELL_TEST_", "STEPWELL_KILL_AT")
"""Beginnings of variables that belong to the SDK and to the tests, not to the server."""
_BY_NAME = {known.name: known for known in KNOWN}


def default_workers() -> int:
    """Give the number of worker processes that leaves room for Postgres on the same machine."""
    return max(1, min(64, (os.cpu_count() or 1) // 2))


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings for a process that is about to start.

    `environ` is usually `os.environ`. Raises `SettingRefused` naming everything that is wrong, not only the first.
    """
    reader = _Reader(environ)
    mode = Mode(reader.choice("STEPWELL_MODE", [mode.value for mode in Mode], Mode.SERVER))
    dev = mode is Mode.DEV
    host = reader.parsed("STEPWELL_HOST", _listen_address, "127.0.0.1")
    port = reader.number("STEPWELL_PORT", 8288, 1, 65535)
    hosted = reader.flag("STEPWELL_HOSTED", False)
    retry_delay_ms = reader.optional_number("STEPWELL_RETRY_DELAY_MS", 0, 86_400_000)
    base_url = reader.parsed("STEPWELL_BASE_URL", _base_url, default_base_url(host, port))
    retention_days = reader.optional_number("STEPWELL_RETENTION_DAYS", 1, 3650)
    settings = Settings(
        database_url=reader.required("DATABASE_URL", _database_url),
        redis_url=reader.required("REDIS_URL", _redis_url),
        secret_key=reader.required("STEPWELL_SECRET_KEY", _secret_key),
        base_url=base_url,
        host=host,
        port=port,
        data_dir=Path(environ.get("STEPWELL_DATA_DIR") or ".stepwell"),
        allow_private_apps=reader.flag("STEPWELL_ALLOW_PRIVATE_APPS", dev) and not hosted,
        hosted=hosted,
        sign_up=reader.choice("STEPWELL_SIGN_UP", ["open", "first", "closed"], "first"),
        login_providers=reader.parsed(
            "STEPWELL_LOGIN_PROVIDERS", lambda text: _login_providers(text, base_url, is_dev=dev), ()
        ),
        smtp_url=reader.parsed("STEPWELL_SMTP_URL", _smtp_url, "") or None,
        mail_from=reader.parsed("STEPWELL_MAIL_FROM", _mail_from, f"stepwell@{urlsplit(base_url).hostname}"),
        retry_delay=None if retry_delay_ms is None else timedelta(milliseconds=retry_delay_ms),
        metrics=reader.parsed("STEPWELL_METRICS", _metrics, "off"),
        otlp_endpoint=reader.parsed("STEPWELL_OTLP_ENDPOINT", _collector, ""),
        operators=reader.parsed("STEPWELL_OPERATORS", _operators, ()),
        retention=None if retention_days is None else timedelta(days=retention_days),
        stripe=_stripe(reader) if hosted else None,
        mode=mode,
        workers=reader.number("STEPWELL_WORKERS", default_workers(), 1, 64),
        worker_name=reader.parsed("STEPWELL_WORKER_NAME", _name, "") or None,
        max_calls=reader.number("STEPWELL_MAX_CALLS", 256, 1, 10_000),
        lease=timedelta(seconds=reader.number("STEPWELL_LEASE_SECONDS", 30, 3, 3600)),
        call_timeout=timedelta(seconds=reader.number("STEPWELL_CALL_TIMEOUT_SECONDS", 7200, 1, 7200)),
        stop_within=timedelta(seconds=reader.number("STEPWELL_STOP_SECONDS", 28, 8, 7200)),
        log_format=LogFormat(
            reader.choice("STEPWELL_LOG_FORMAT", ["json", "console"], LogFormat.CONSOLE if dev else LogFormat.JSON)
        ),
        log_level=reader.choice("STEPWELL_LOG_LEVEL", ["debug", "info", "warning", "error"], "info"),
        app_urls=reader.parsed("STEPWELL_APP_URLS", _app_urls, ()),
        discovery=reader.flag("STEPWELL_DISCOVERY", True),
    )
    if reader.refusals:
        raise SettingRefused(*reader.refusals)
    return settings


def default_base_url(host: str, port: int) -> str:
    """Give the address under which this machine reaches a web process that listens on `host` and `port`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a comparison, nothing is bound here
    reachable = everywhere.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def unknown(environ: Mapping[str, str]) -> list[str]:
    """List variables that look like settings and are none, most likely misspelt; `doctor` shows them."""
    return sorted(
        name
        for name in environ
        if name.startswith("STEPWELL_") and name not in _BY_NAME and not name.startswith(_OTHERS)
    )


class _Reader:
    """Reads typed values and collects refusals, so that a person can mend all of them in one go."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.refusals: list[Refusal] = []

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Read a value through `parse`, which raises `ValueError` for what it does not take."""
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ProvidersInvalid as refused:
            self._refuse(name, str(refused))
            return default
        except ValueError:
            self._refuse(name, "something secret of another form" if _BY_NAME[name].secret else repr(text))
            return default

    def required(self, name: str, parse: Callable[[str], str]) -> str:
        """Read a text that has no default."""
        if not self._environ.get(name, "").strip():
            self._refuse(name, "nothing")
        return self.parsed(name, parse, "")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """Read a whole number between `low` and `high`, both included."""
        return self.parsed(name, lambda text: _number(text, low, high), default)

    def optional_number(self, name: str, low: int, high: int) -> int | None:
        """Read a whole number, or none if the variable is unset or empty."""
        return self.parsed(name, lambda text: _number(text, low, high), None)

    def flag(self, name: str, default: bool) -> bool:
        """Read a yes or no; an unset or empty variable gives the default."""
        return self.parsed(name, _flag, default)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Read one of a few words."""
        return self.parsed(name, lambda text: _one_of(text, choices), default)

    def has(self, name: str) -> bool:
        """Whether something is written there."""
        return bool(self._environ.get(name, "").strip())

    def _refuse(self, name: str, found: str) -> None:
        self.refusals.append(Refusal(name, _BY_NAME[name].expects, found))


def _stripe(reader: _Reader) -> StripeSettings | None:
    if not reader.has("STEPWELL_STRIPE_KEY"):
        return None
    return StripeSettings(
        key=reader.required("STEPWELL_STRIPE_KEY", _stripe_key),
        webhook_secret=reader.required("STEPWELL_STRIPE_WEBHOOK_SECRET", _stripe_key),
        prices=_prices(reader.required("STEPWELL_STRIPE_PRICES", _priced)),
        meter=reader.parsed("STEPWELL_STRIPE_METER", _meter, "stepwell_executions"),
        url=reader.parsed("STEPWELL_STRIPE_URL", _collector, "") or None,
    )


def _stripe_key(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]+_[0-9A-Za-z_]{8,300}", text):
        raise ValueError
    return text


def _priced(text: str) -> str:
    _prices(text)
    return text


def _meter(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_.:-]{1,100}", text):
        raise ValueError
    return text


def _prices(text: str) -> tuple[tuple[str, str, str | None], ...]:
    found = []
    for part in (one.strip() for one in text.split(",") if one.strip()):
        match = re.fullmatch(r"(pro|business)=(price_\w{1,200})(?:\+(price_\w{1,200}))?", part, flags=re.ASCII)
        if match is None:
            raise ValueError
        found.append((match[1], match[2], match[3]))
    if len({plan for plan, *_ in found}) != len(found):
        raise ValueError
    return tuple(found)


def _number(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError
    return _within(int(text), low, high)


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError
    return value


def _flag(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _one_of(text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise ValueError
    return text


def _metrics(text: str) -> str:
    if text not in {"off", "loopback"} and not (16 <= len(text) <= 200 and text.isascii() and text.isprintable()):
        raise ValueError
    return text


def _collector(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.port == 0:
        raise ValueError
    return text.rstrip("/")


def _operators(text: str) -> tuple[str, ...]:
    addresses = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if not all("@" in address and " " not in address for address in addresses):
        raise ValueError
    return addresses


def _listen_address(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise ValueError
    return text


def _name(text: str) -> str:
    if len(text) > 100 or not text.isprintable():
        raise ValueError
    return text


def _secret_key(text: str) -> str:
    if len(text) < SECRET_KEY_MIN_CHARS:
        raise ValueError
    return text


def _database_url(text: str) -> str:
    """Accept the spellings hosting companies use and give back the one asyncpg takes."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError
    parts = urlsplit(f"postgresql://{rest}")
    if len(parts.path) < 2 or "/" in parts.path[1:]:
        raise ValueError
    if parts.port is None and not parts.hostname and "host=" not in parts.query:
        raise ValueError
    return f"postgresql://{rest}"


def _redis_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError
    if parts.scheme == "unix" and not parts.path:
        raise ValueError
    if parts.scheme != "unix" and (not parts.hostname or parts.port == 0):
        raise ValueError
    return text


def _login_providers(text: str, base_url: str, *, is_dev: bool) -> tuple[Provider, ...]:
    """Providers on this machine may go without TLS where browsers come to us without it, too."""
    found = parse_providers(text, allows_loopback=not base_url.startswith("https://"))
    return () if is_dev else found


def _smtp_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.port == 0 or parts.path.strip("/"):
        raise ValueError
    if bool(parts.username) != bool(parts.password) or parts.query or parts.fragment:
        raise ValueError
    return text


def _mail_from(text: str) -> str:
    if not re.fullmatch(r"(?:[^<>@\r\n]*<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+)", text) or not text.isprintable():
        raise ValueError
    return text


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError
    if parts.fragment or parts.username or parts.port == 0:
        raise ValueError
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


def _app_urls(text: str) -> tuple[str, ...]:
    urls = tuple(part.strip() for part in text.split(",") if part.strip())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError
    return urls
