"""Workers in processes of their own, which a test kills by signal; each can be replaced by another."""

import subprocess
import sys
from pathlib import Path

from tests.processes import environ


class Workers:
    """The processes. `speed` is how many seconds pass by the database's clock in one of ours."""

    def __init__(self, url: str, redis: str, folder: Path, speed: int = 1) -> None:
        self.url, self.redis, self.folder, self.speed, self.count = url, redis, folder, speed, 0
        self.diaries: list[Path] = []
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """One more."""
        self.count += 1
        self.diaries.append(self.folder / f"w{self.count}.diary")
        arguments = [self.url, self.redis, f"w{self.count}", str(self.diaries[-1]), str(self.speed)]
        command = [sys.executable, "-m", "tests.integration.engine.worker_process", *arguments]
        self.running.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=environ()))

    def kill(self) -> None:
        """End the oldest with SIGKILL."""
        one = self.running.pop(0)
        one.kill()
        one.wait()

    def end(self) -> None:
        """End all."""
        while self.running:
            self.kill()
