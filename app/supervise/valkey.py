"""The embedded Valkey: started on loopback with a password, its last second of writes kept at most loosely.

Nothing it holds is needed after a restart; it keeps an append-only file only so that a restart wakes nobody for nothing.
"""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from app.supervise.children import ChildSpec
from app.supervise.identity import ServerUser


@dataclass(frozen=True, slots=True)
class Valkey:
    """One embedded server: its program, its folder, its port and its password (hexadecimal)."""

    program: Path
    folder: Path
    port: int
    password: str
    user: ServerUser

    @property
    def url(self) -> str:
        """Give the address of its first database."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Give the address of one of its numbered databases, 0 to 63."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Write the configuration; the password goes there and not on the command line, which everybody can read."""
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            "databases 64",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "daemonize no",
            # Nudges and caches never need more; what is refused above it costs a second, never work.
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
        ]
        config = self.folder / "valkey.conf"
        config.unlink(missing_ok=True)
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.user.own(config)

    def spec(self) -> ChildSpec:
        """Say how the supervisor starts and stops this server."""
        return ChildSpec(
            name="valkey",
            command=[self.program, "valkey.conf"],
            environ={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stop_rank=80,
            stop_signal=signal.SIGTERM,
            grace=2.0,
            user=self.user,
            folder=self.folder,
        )

    def is_ready(self) -> bool:
        """Say whether it answers PING; the dataset is loaded then."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\n") < 2:
                    chunk = connection.recv(256)
                    if not chunk:
                        return False
                    answer += chunk
        except OSError:
            return False
        return answer.endswith(b"+PONG\r\n")
