"""The state folder: data of the embedded servers, kept secrets, the lock, and the note on what is running.

    <data folder>/<name>/lock           held while a supervisor (or `bootstrap` without one) uses the folder
                        /secrets.json   secret key and passwords, generated once, mode 0600
                        /run.json       addresses of what is running now, mode 0600, gone after a clean stop
                        /postgres/ /valkey/ /logs/
    <data folder>/programs/             copies of server programs, only where they are needed

`name` keeps the data of `dev`, `up` and `demo` apart. Who holds the lock is authoritative for everything inside.
"""

import fcntl
import hashlib
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, fields
from io import TextIOWrapper
from pathlib import Path

from app.supervise.identity import ServerUser, server_user

SYSTEM_STATE = Path("/var/lib/stepwell")
"""Where the state goes when the server user cannot reach the wanted folder, as inside a closed home folder."""


class StateLocked(Exception):
    """Another Stepwell already runs on this state folder. The message names its process."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is generated on the first start and kept for ever."""

    secret_key: str
    postgres_password: str
    valkey_password: str
    demo_password: str


@dataclass(frozen=True, slots=True)
class Running:
    """What other commands need to know of a running supervisor; the content of `run.json`."""

    pid: int
    mode: str
    database_url: str
    redis_url: str
    base_url: str
    secret_key: str


def data_folder(wanted: Path, user: ServerUser) -> Path:
    """Give the data folder: the wanted one if the server user can walk to it, else one under `/var/lib/stepwell`."""
    here = wanted.absolute()
    if user.can_traverse(here):
        return here
    return SYSTEM_STATE / hashlib.sha256(os.fsencode(here)).hexdigest()[:16]


class State:
    """One opened state folder. `lock` makes what is missing and takes it for oneself."""

    def __init__(self, wanted: Path, name: str, user: ServerUser | None = None) -> None:
        self.user = user or server_user()
        self.root = data_folder(wanted, self.user)
        self.folder = self.root / name
        self.programs = self.root / "programs"
        self._lock: TextIOWrapper | None = None

    def _make(self) -> None:
        """Make the folders; looking at a state, as `doctor` does, leaves nothing behind."""
        for folder in (self.root, self.folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711 if self.user.uid is not None else 0o700)

    def lock(self) -> None:
        """Take the folder until `release` or the end of this process. Raises `StateLocked` if somebody has it."""
        self._make()
        file = (self.folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise StateLocked(f"Stepwell already runs on {self.folder} (process {holder}).") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file
        self.forget_running()

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def secrets(self) -> Secrets:
        """Give the kept secrets, generating those that are missing. The caller holds the lock."""
        self._make()
        path = self.folder / "secrets.json"
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        names = [field.name for field in fields(Secrets)]
        if any(name not in kept for name in names):
            kept = {name: kept.get(name) or secrets.token_hex(8 if name == "demo_password" else 32) for name in names}
            _write_private(path, kept)
        return Secrets(**{name: kept[name] for name in names})

    def note_running(self, running: Running) -> None:
        """Tell other commands what runs now."""
        _write_private(self.folder / "run.json", asdict(running))

    def running(self) -> Running | None:
        """Read what runs now, or none. A note left by a supervisor that was killed is void: its lock is free."""
        try:
            noted = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            running = Running(**noted)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return running if self.is_locked() else None

    def is_locked(self) -> bool:
        """Say whether some process, perhaps this one, holds the folder."""
        if self._lock is not None:
            return True
        try:
            with (self.folder / "lock").open("r", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def forget_running(self) -> None:
        """Remove the note, at a clean stop and before a new start."""
        (self.folder / "run.json").unlink(missing_ok=True)

    def server_folder(self, name: str) -> Path:
        """Make and give the folder of one server, owned by the server user and closed to others."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True, mode=0o700)
        self.user.own(folder)
        return folder

    def port(self, name: str) -> int:
        """Choose a loopback port for a server: the one it had last time if it is free, else a new one."""
        self._make()
        path = self.folder / "ports.json"
        kept: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        port = kept.get(name, 0)
        if not port or not is_free("127.0.0.1", port):
            port = free_port()
            _write_private(path, kept | {name: port})
        return port


def free_port() -> int:
    """Ask the system for a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Say whether a server could listen on `host` and `port` now."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True


def _write_private(path: Path, content: object) -> None:
    """Write JSON that only we may read, in one move, so that a reader never sees half of it."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
