"""The checks of `doctor`: each looks at one thing and says what it found and what to do.

Every check answers, whatever happens: what cannot be looked at is a failure with a sentence.
"""

import importlib
import os
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

from app.cli.house import answers
from app.config import Settings, unknown
from app.domain.errors import StepwellError
from app.supervise.state import State, is_free

OLDEST_POSTGRES = 160_000
"""Version number of Postgres 16, the oldest we are tested against."""
CLOCK_TOLERANCE = 2.0
"""Seconds. Leases go by the database's clock; signatures of calls by ours, and SDKs allow minutes. Two is a warning."""
LEAST_FREE_BYTES = 2 * 1024**3
"""Below this a busy embedded database may fill the disk within a day."""
ROLES = ("stepwell_app", "stepwell_engine")
"""The roles that pages and engine work as; row-level security stands on them."""


class Verdict(StrEnum):
    """How a check ended. Only `fail` makes `doctor` end with code 1."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it; nothing to do is an empty text."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def check_settings(environ: Mapping[str, str]) -> Finding:
    """Look for variables that look like settings and are none."""
    strange = unknown(environ)
    if strange:
        advice = "Check their spelling; they have no effect."
        return Finding("settings", Verdict.WARNING, f"unknown: {', '.join(strange)}", advice)
    return Finding("settings", Verdict.OK, "every one is known and well formed")


def check_data_folder(state: State) -> Finding:
    """Look at the folder of the embedded servers and the room left on its disk."""
    existing = next(folder for folder in (state.folder, *state.folder.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{state.folder}, {free / 1024**3:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return Finding("data folder", Verdict.WARNING, found, "Free some space, or set STEPWELL_DATA_DIR.")
    return Finding("data folder", Verdict.OK, found)


def check_secret_key(secret_key: str, *, kept: bool) -> Finding:
    """Look at the quality of the secret key, and say where it comes from."""
    if len(set(secret_key)) < 10:
        advice = "Take a random one, such as 64 hexadecimal digits. Changing it loses the stored keys."
        return Finding("secret key", Verdict.WARNING, "easily guessed", advice)
    return Finding("secret key", Verdict.OK, "kept in the data folder; back it up" if kept else "given")


def check_cookies(settings: Settings) -> Finding:
    """Say whether login cookies are safe on their way."""
    if settings.is_https:
        return Finding("cookies", Verdict.OK, "Secure, with the __Host- prefix")
    advice = "Put TLS before Stepwell and set STEPWELL_BASE_URL to its https address."
    local = urlsplit(settings.base_url).hostname in {"localhost", "127.0.0.1", "::1"}
    found = f"not Secure, because {settings.base_url} is not https"
    return Finding("cookies", Verdict.WARNING, f"{found} (harmless on this machine)" if local else found, advice)


def check_port(settings: Settings) -> Finding:
    """Say whether the web process answers, or could listen."""
    where = f"{settings.host}:{settings.port}"
    if answers(settings):
        return Finding("port", Verdict.OK, f"Stepwell answers on {where}")
    if is_free(settings.host, settings.port):
        return Finding("port", Verdict.OK, f"{where} is free")
    return Finding("port", Verdict.FAIL, f"{where} is taken by something else", "Stop it, or set STEPWELL_PORT.")


def check_redis(url: str) -> Finding:
    """Ask the server behind REDIS_URL for a PING. Its absence slows Stepwell down and loses nothing."""
    try:
        answer = _ping(url)
    except OSError as error:
        advice = "Start it or mend REDIS_URL. Without it work is found by sweeps, so everything takes seconds longer."
        return Finding("redis", Verdict.WARNING, f"not reachable: {error}", advice)
    if not answer.startswith(b"+PONG"):
        said = answer.split(b"\r\n")[0].decode("utf-8", "replace")[:100]
        return Finding("redis", Verdict.WARNING, f"answers {said!r}", "Check the password in REDIS_URL.")
    return Finding("redis", Verdict.OK, "answers")


async def check_providers(settings: Settings) -> list[Finding]:
    """Ask each login provider for its discovery document. One that is down delays nobody with a password."""
    if not settings.login_providers:
        return []
    oauth = importlib.import_module("app.adapters.oauth")
    door = oauth.door_to(
        settings.login_providers,
        listens_at=(settings.host, settings.port),
        services=(settings.database_url, settings.redis_url, settings.base_url),
        is_hosted=settings.hosted,
    )
    findings = []
    for provider in settings.login_providers:
        check, back = f"login {provider.key}", f"{settings.base_url}/login/{provider.key}/callback"
        try:
            await door.departure(provider, back)
        except StepwellError as error:
            advice = "Compare STEPWELL_LOGIN_PROVIDERS with the provider's discovery document (docs/login.md)."
            findings.append(Finding(check, Verdict.WARNING, str(error), advice))
        else:
            findings.append(Finding(check, Verdict.OK, f"its redirect address must be {back}"))
    await door.close()
    return findings


def _ping(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(3.0)
        connection.connect(parts.path)
    else:
        connection = socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=3.0)
    if parts.scheme == "rediss":
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    with connection:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            connection.sendall(_command("AUTH", *user, unquote(parts.password)))
            answer = connection.recv(256)
            if not answer.startswith(b"+OK"):
                return answer
        connection.sendall(_command("PING"))
        return connection.recv(256)


def _command(*words: str) -> bytes:
    """Write a command as Redis reads it, so that no password can be mistaken for another command."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


async def check_database(url: str) -> list[Finding]:
    """Look at everything behind DATABASE_URL: reachable, version, clock, roles, schema."""
    asyncpg = importlib.import_module("asyncpg")
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        advice = "Start Postgres, or mend DATABASE_URL; for the embedded one run `stepwell up`."
        return [Finding("database", Verdict.FAIL, f"not reachable: {error or type(error).__name__}", advice)]
    findings = []
    try:
        for check in (_version, _clock, _roles, _schema):
            try:
                findings.append(await check(connection))
            except asyncpg.PostgresError as error:
                name = check.__name__.strip("_")
                findings.append(Finding(name, Verdict.FAIL, str(error), "Look into the database's log."))
    finally:
        await connection.close()
    return findings


async def _version(connection: Any) -> Finding:
    number = int(await connection.fetchval("show server_version_num"))
    shown = await connection.fetchval("show server_version")
    if number < OLDEST_POSTGRES:
        return Finding("database", Verdict.FAIL, f"Postgres {shown}", "Move to Postgres 16 or newer.")
    return Finding("database", Verdict.OK, f"Postgres {shown} answers")


async def _clock(connection: Any) -> Finding:
    before = time.time()
    theirs = float(await connection.fetchval("select extract(epoch from clock_timestamp())::float8"))
    apart = theirs - (before + time.time()) / 2
    found = f"{abs(apart) * 1000:.0f} ms {'ahead of' if apart > 0 else 'behind'} ours"
    if abs(apart) > CLOCK_TOLERANCE:
        return Finding("clock", Verdict.WARNING, f"the database's is {found}", "Run a time service on both machines.")
    return Finding("clock", Verdict.OK, f"the database's is {found}")


async def _roles(connection: Any) -> Finding:
    rows = await connection.fetch(
        "select rolname, pg_has_role(current_user, oid, 'member') as ours from pg_roles where rolname = any($1)",
        list(ROLES),
    )
    missing = sorted(set(ROLES) - {row["rolname"] for row in rows})
    foreign = sorted(row["rolname"] for row in rows if not row["ours"])
    user = await connection.fetchval("select current_user")
    if missing:
        statements = " ".join(f'create role {role} nologin; grant {role} to "{user}";' for role in missing)
        advice = f"Run `stepwell migrate`; if its user may not create roles, let an administrator run: {statements}"
        return Finding("roles", Verdict.FAIL, f"missing: {', '.join(missing)}", advice)
    if foreign:
        statements = " ".join(f'grant {role} to "{user}";' for role in foreign)
        advice = f"Let an administrator run: {statements}"
        return Finding("roles", Verdict.FAIL, f"{user} may not act as {', '.join(foreign)}", advice)
    return Finding("roles", Verdict.OK, f"{user} may act as {' and '.join(ROLES)}")


async def _schema(connection: Any) -> Finding:
    wanted: str = importlib.import_module("app.store.migrate").newest()
    found: str | None = None
    if await connection.fetchval("select to_regclass('alembic_version') is not null"):
        found = await connection.fetchval("select version_num from alembic_version")
    if found == wanted:
        return Finding("migrations", Verdict.OK, f"at {found}")
    if found is not None and found > wanted:
        advice = "Update Stepwell on this machine; the database is ahead of it."
        return Finding("migrations", Verdict.WARNING, f"at {found}, this code knows {wanted}", advice)
    return Finding("migrations", Verdict.FAIL, f"at {found or 'nothing'}, wanted {wanted}", "Run `stepwell migrate`.")


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """Run a check that looks at the machine; what the system refuses becomes a finding."""
    try:
        return check()
    except OSError as error:
        return Finding(name, Verdict.FAIL, f"cannot be looked at: {error}", f"Check it as user {os.geteuid()}.")
