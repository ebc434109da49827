"""Our own programs and apps as child processes: started with a clean environment, watched, always ended by their id.

    with running("web", our_command("app.cli", "web"), environ, folder) as process:
        await_so(lambda: answers(url), "web answers", [process])

Nothing here waits for a time; everything waits for something to be so, and gives up when a process it needs is dead or a
generous deadline has passed. Both end with the last lines of what the processes said.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx2

from app.supervise.children import _die_with_parent

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
"""The checkout; its code is run, whatever is installed."""
WITHIN = 90.0
"""Seconds for anything to become so on a machine that many share."""
GRACE = 30.0
"""Seconds a process may take to end after SIGTERM; a worker hands its calls back by itself before."""
_TAIL = 4000
"""Characters of a log that an error shows."""


class Process:
    """One child process and its log."""

    def __init__(self, name: str, command: list[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=ROOT,
                # Of its own session, so that what it starts can be ended with it.
                start_new_session=True,
                # Should the test process be killed, this one is told to end, too.
                preexec_fn=_die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - the main thread starts it
            )

    @property
    def pid(self) -> int:
        """The process id, which is the id of its group as well."""
        return self.popen.pid

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]

    def stop(self) -> None:
        """End it, gently first."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it and its children at once, with SIGKILL."""
        if self.popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait(GRACE)


@contextmanager
def running(name: str, command: list[str], environ: Mapping[str, str], folder: Path) -> Iterator[Process]:
    """Run a process for the time of a block."""
    process = Process(name, command, environ, folder)
    try:
        yield process
    finally:
        process.stop()


def our_command(*words: str) -> list[str]:
    """The command line of one of our own modules."""
    return [sys.executable, "-P", "-m", *words]


def environ(**settings: str) -> dict[str, str]:
    """What every process needs, without anything of the developer's shell that Stepwell or an SDK would read."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "sdk")])
    return {**kept, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **settings}


def await_so(is_so: Callable[[], T | None], what: str, needs: Iterable[Process] = (), within: float = WITHIN) -> T:
    """Look until something is so (truthy) and give it."""
    needs = list(needs)
    deadline = time.monotonic() + within
    while True:
        found = is_so()
        if found:
            return found
        dead = [process for process in needs if process.popen.poll() is not None]
        if dead or time.monotonic() > deadline:
            why = f"{dead[0].name} is dead" if dead else f"not within {within:.0f} s"
            said = "\n".join(f"--- {process.name}\n{process.said()}" for process in needs)
            raise AssertionError(f"{what}: {why}\n{said}")
        time.sleep(0.05)  # Polling another process, bounded by the deadline.


def status_of(url: str) -> int:
    """The status of a GET, 0 when nobody answers."""
    try:
        return httpx2.get(url, timeout=5.0).status_code
    except httpx2.TransportError:
        return 0
