"""One machine's Stepwell: servers, migrations, web and workers under one supervisor.

`up`, `dev` and `demo` differ only in their settings and in what they say. Read top to bottom: settings, state folder,
servers, schema, children, ready.
"""

import hashlib
import http.client
import os
import subprocess
import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from app.config import LogFormat, Mode, Settings, default_base_url, load
from app.supervise.children import ChildSpec, Supervisor
from app.supervise.lines import Lines
from app.supervise.servers import start_servers
from app.supervise.state import Running, State, is_free

ROOT = Path(__file__).resolve().parents[2]
"""Where `app` lies: a checkout, or the folder of installed packages."""
READY_WITHIN = 120.0
"""Seconds for the web process to give its first answer on a loaded machine."""
PLACEHOLDERS = {
    "DATABASE_URL": "postgresql://embedded@127.0.0.1/stepwell",
    "REDIS_URL": "redis://127.0.0.1",
    "STEPWELL_SECRET_KEY": "-" * 64,
}
"""Stand in for what is only known once the servers run, so that all other settings are refused before anything starts."""

WORKER_RANK, APP_RANK, WEB_RANK = 10, 15, 20
"""Order of a stop: workers end their calls first, which apps and web must outlive; the servers go last."""
WORKER_STOP = 15
"""Seconds a worker takes to stop here unless `STEPWELL_STOP_SECONDS` says otherwise: it hands its calls back by itself."""
WORKER_SPARE, WEB_GRACE = 1.0, 4.0
"""Seconds beyond that until a worker is killed, and until the web process is. With the servers' grace it is 30 in all."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A house whose servers run and whose schema is current."""

    state: State
    settings: Settings
    environ: Mapping[str, str]
    """What children are given."""
    supervisor: Supervisor


def child_command(*words: str) -> list[str]:
    """Give the command line of one of our own processes; `-P` keeps the user's folder off the import path."""
    return [sys.executable, "-P", "-m", *words]


def open_house(
    environ: Mapping[str, str], mode: Mode, name: str, *, quiet: Container[str] = ("postgres", "valkey")
) -> Opened:
    """Refuse wrong settings, take the state folder, start the servers that are not given, bring the schema up.

    `name` is the state folder's part; `quiet` names children whose output goes to files only. On any failure whatever
    was started is stopped again.
    """
    wanted = {**environ, "STEPWELL_MODE": mode.value}
    settings = load({**PLACEHOLDERS, **{key: value for key, value in wanted.items() if value.strip()}})
    state = State(settings.data_dir, name)
    state.lock()
    if not is_free(settings.host, settings.port):
        raise click.ClickException(
            f"port {settings.port} on {settings.host} is taken; stop what uses it, or set STEPWELL_PORT (or --port)."
        )
    supervisor = Supervisor(
        Lines(state.folder / "logs", quiet=quiet, prefixed=settings.log_format is LogFormat.CONSOLE)
    )
    supervisor.listen_to_signals()
    try:
        servers = start_servers(
            supervisor, state, postgres=not wanted.get("DATABASE_URL"), valkey=not wanted.get("REDIS_URL")
        )
        if servers.postgres is not None:
            wanted["DATABASE_URL"] = servers.postgres.url
        if servers.valkey is not None:
            wanted["REDIS_URL"] = servers.valkey.url
        if not wanted.get("STEPWELL_SECRET_KEY"):
            wanted["STEPWELL_SECRET_KEY"] = state.secrets().secret_key
        settings = load(wanted)
        if not supervisor.stop_asked:
            _migrate(state, wanted, ours=servers.postgres is not None)
    except BaseException:
        close_house(state, supervisor)
        raise
    state.note_running(
        Running(
            pid=os.getpid(),
            mode=mode.value,
            database_url=settings.database_url,
            redis_url=settings.redis_url,
            base_url=settings.base_url,
            secret_key=settings.secret_key,
        )
    )
    return Opened(state, settings, wanted, supervisor)


def close_house(state: State, supervisor: Supervisor) -> None:
    """Stop everything in order and give the folder back."""
    supervisor.stop()
    state.forget_running()
    state.release()


def run_house(house: Opened, when_ready: Callable[[], None]) -> None:
    """Start web and workers, say so when the first answer comes, and stay until a stop is asked."""
    try:
        start_processes(house)
        if house.supervisor.wait_until(lambda: answers(house.settings), READY_WITHIN):
            when_ready()
        elif not house.supervisor.stop_asked:
            click.echo("Stepwell gives no answer yet; its processes are started again and again. See the lines above.")
        while not house.supervisor.stop_asked:
            house.supervisor.turn(1.0)
    finally:
        close_house(house.state, house.supervisor)


def start_processes(house: Opened) -> None:
    """Start the web process and the workers side by side."""
    stop_within = house.environ.get("STEPWELL_STOP_SECONDS", "").strip() or str(WORKER_STOP)
    house.supervisor.start(
        ChildSpec("web", child_command("app.cli", "web"), house.environ, stop_rank=WEB_RANK, grace=WEB_GRACE)
    )
    for number in range(1, house.settings.workers + 1):
        name = f"worker-{number}"
        house.supervisor.start(
            ChildSpec(
                name,
                child_command("workers.main"),
                {**house.environ, "STEPWELL_WORKER_NAME": name, "STEPWELL_STOP_SECONDS": stop_within},
                stop_rank=WORKER_RANK,
                grace=float(stop_within) + WORKER_SPARE,
            )
        )


def answers(settings: Settings) -> bool:
    """Say whether the web process answers `/health`."""
    address = urlsplit(default_base_url(settings.host, settings.port))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=2.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _migrate(state: State, environ: Mapping[str, str], *, ours: bool) -> None:
    """Bring the schema up in a process of its own, whose memory goes when it ends.

    The embedded database is nobody's but ours, so a note of which migrations it has had saves that process at a warm
    start. A given database is always asked.
    """
    note, wanted = state.folder / "migrated", migrations_digest()
    if ours and note.exists() and note.read_text(encoding="utf-8") == wanted:
        return
    done = subprocess.run(
        child_command("app.cli", "migrate"), check=False, env=dict(environ), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise click.ClickException(f"the database could not be brought up to date.\n{done.stderr.strip()}")
    if ours:
        note.write_text(wanted, encoding="utf-8")


def migrations_digest() -> str:
    """Give a short name for the set of migrations of this code, by the content of their folder."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "migrations").rglob("*")):
        if path.suffix in {".py", ".sql"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
