"""The embedded Postgres: made once, started on loopback with a password, found ready, cleared up after a crash.

Owns the cluster's folder and its settings. Connecting is left to others: readiness is read from `postmaster.pid`, as
`pg_ctl` does, so no driver is needed here.
"""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from app.supervise.children import ChildSpec
from app.supervise.identity import ServerUser

OWNER = "stepwell"
"""Owner of the cluster and of the database; the roles the product works as are made by the first migration."""
DATABASE = "stepwell"

SETTINGS: dict[str, str] = {
    "unix_socket_directories": "",
    "max_connections": "200",
    # One machine is shared with the web and worker processes: a quarter of a gigabyte holds the hot tables of a busy
    # start-up, the rest of the memory serves as the system's cache.
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    # An answer "accepted" means on disk. Batching of commits is done by the engine, not by delaying them here.
    "synchronous_commit": "on",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    "checkpoint_completion_target": "0.9",
    # Queue tables turn over completely within seconds, so dead rows are looked for often and removed quickly.
    "autovacuum_naptime": "10s",
    "autovacuum_max_workers": "2",
    "autovacuum_vacuum_cost_limit": "2000",
    # Short statements only: compiling them or spreading them over processes costs more than it gives.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "random_page_cost": "1.1",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
"""Server settings, given at every start; sized for two cores and two gigabytes."""


class PostgresFailed(Exception):
    """The embedded Postgres could not be made ready. The message carries what it said."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """One embedded cluster: its programs, its folder, its port and the password of its owner."""

    programs: Path
    """Folder with `initdb` and `postgres`."""
    folder: Path
    """Folder of the cluster, owned by the server user."""
    port: int
    password: str
    user: ServerUser
    extra: tuple[tuple[str, str], ...] = ()
    """Settings on top of `SETTINGS`; tests turn `fsync` off."""

    @property
    def url(self) -> str:
        """Give the address of the product's database."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Give the address of one database of this cluster, for its owner."""
        return f"postgresql://{OWNER}:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def exists(self) -> bool:
        """Say whether the cluster has been made completely; a half-made one is made again."""
        return (self.folder / "stepwell.made").exists()

    def make(self) -> None:
        """Create the cluster and the database in it, as ordered, without leaving anything running. About 2 s."""
        if self.exists:
            return
        self._empty()
        password_file = self.folder.parent / f".{self.folder.name}.password"
        password_file.touch(mode=0o600)
        self.user.own(password_file)
        try:
            password_file.write_text(self.password, encoding="utf-8")
            self._finish(
                [
                    *("initdb", "-D", os.fspath(self.folder), "-U", OWNER, "-A", "scram-sha-256"),
                    *("--pwfile", os.fspath(password_file), "-E", "UTF8", "--locale=C"),
                    # The same order of texts on all machines; this build carries no ICU.
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                    *(["--no-sync"] if ("fsync", "off") in self.extra else []),
                ]
            )
        finally:
            password_file.unlink()
        self._finish(
            ["postgres", "--single", "-D", os.fspath(self.folder), "postgres"],
            said=f"create database {DATABASE}\n",
        )
        made = self.folder / "stepwell.made"
        made.touch()
        self.user.own(made)

    def spec(self) -> ChildSpec:
        """Say how the supervisor starts and stops this server."""
        settings = SETTINGS | dict(self.extra)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ChildSpec(
            name="postgres",
            command=[
                self.programs / "postgres",
                *("-D", os.fspath(self.folder), "-h", "127.0.0.1", "-p", str(self.port)),
                *options,
            ],
            environ=_environ(),
            stop_rank=90,
            # SIGINT is the fast stop: it ends sessions; SIGTERM would wait for them.
            stop_signal=signal.SIGINT,
            grace=6.0,
            never_hurried=True,
            user=self.user,
            folder=self.folder,
            before_start=self.clear_up,
        )

    def is_ready(self, pid: int | None) -> bool:
        """Say whether the server with this process id accepts connections, by what it wrote into its pid file."""
        lines = self._pid_file()
        return pid is not None and len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def clear_up(self) -> None:
        """Deal with the pid file of a server that was killed: end its owner if it still lives, then remove the file.

        Postgres itself refuses to start when the number in the file belongs to any living process of the same user,
        which after a reboot or in a container may be a stranger. We hold the folder's lock, so the file is stale.
        """
        lines = self._pid_file()
        if not lines or not lines[0].isdecimal():
            return
        pid = int(lines[0])
        if _is_postmaster(pid, self.folder):
            _end(pid)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _pid_file(self) -> list[str]:
        try:
            return (self.folder / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _empty(self) -> None:
        """Remove what an interrupted `initdb` left; it starts in an empty folder only."""
        subprocess.run(["rm", "-rf", "--", os.fspath(self.folder)], check=True)
        self.folder.mkdir(parents=True, mode=0o700)
        self.user.own(self.folder)

    def _finish(self, command: list[str], said: str = "") -> None:
        """Run one of the programs to its end as the server user."""
        done = subprocess.run(
            [self.programs / command[0], *command[1:]],
            check=False,
            input=said,
            capture_output=True,
            text=True,
            env=_environ(),
            cwd=self.folder,
            **self.user.popen,
        )
        # Single-user mode answers 0 even if the statement failed, but says ERROR.
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise PostgresFailed(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def _environ() -> dict[str, str]:
    """Give an environment without our secrets and without PG… variables that would change what the programs do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _is_postmaster(pid: int, folder: Path) -> bool:
    """Say whether process `pid` is a Postgres on this very folder."""
    if Path("/proc/self").exists():  # A slim Linux has no `ps`; a Mac has no `/proc`.
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:
        listing = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        command = subprocess.run(listing, check=False, capture_output=True, text=True).stdout
    return "postgres" in command and os.fspath(folder) in command


def _end(pid: int) -> None:
    """Stop a leftover server: quickly but in order, and with SIGKILL after 10 s."""
    for number, seconds in ((signal.SIGINT, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
