"""Child processes: started, listened to, started again when they die, stopped in order.

One thread does everything: it waits for lines of output, for signals and for the next restart. Children are only ever
started from this thread, because on Linux a child is told of its parent's death by the thread that started it.

    running ──dies──► resting ──after its back-off──► running
       └──────stop──────┴──► stopped

Who is authoritative: this module for "should it run", the operating system for "does it run".
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from app.supervise.identity import ServerUser

LineSink = Callable[[str, str], None]
"""Takes the name of a child and one line of its output, without the line end."""

FIRST_DELAY = 0.2
"""Seconds before the second restart in a row; the first is immediate, because most deaths are single ones."""
LONGEST_DELAY = 10.0
"""Seconds between restarts of a child that cannot live; each of them costs a start of Python."""
STEADY = 30.0
"""Seconds of life after which earlier deaths are forgotten."""
LONGEST_LINE = 65_536
"""Bytes of output without a line end after which a line is cut, so that a child cannot fill our memory."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How one child is started and stopped."""

    name: str
    command: Sequence[str | Path]
    environ: Mapping[str, str]
    """The whole environment of the child."""
    stop_rank: int
    """Children of the lowest rank are stopped first; the next rank follows when they are gone."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 5.0
    """Seconds from the stop signal to SIGKILL."""
    never_hurried: bool = False
    """Whether even a second wish to stop waits for the grace, because a kill costs more than it saves."""
    user: ServerUser = field(default_factory=lambda: ServerUser(None, None))
    folder: Path | None = None
    """Working folder; none keeps ours."""
    before_start: Callable[[], None] | None = None
    """Called before every start, to clear up what a killed predecessor left."""


class Child:
    """One child process and the history of its deaths. Used by `Supervisor` only, except for `pid` and `starts`."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.deaths_in_a_row = 0
        self.started_at = 0.0
        self.restart_at: float | None = None
        self.partial = b""

    @property
    def pid(self) -> int | None:
        """Give the process id while the child lives."""
        return self.process.pid if self.process is not None else None

    def start(self, now: float) -> None:
        """Start the process; its output comes through one pipe."""
        if self.spec.before_start is not None:
            self.spec.before_start()
        self.process = subprocess.Popen(
            [os.fspath(part) for part in self.spec.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self.spec.environ),
            cwd=self.spec.folder,
            # Of its own session, so that Ctrl-C reaches only us and we can stop everybody in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid(), self.spec.stop_signal),  # noqa: PLW1509 - one thread starts children
            **self.spec.user.popen,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.starts += 1
        self.started_at = now
        self.restart_at = None

    def died(self, now: float) -> float:
        """Note a death and give the seconds to rest before the next start."""
        self.deaths_in_a_row = 1 if now - self.started_at >= STEADY else self.deaths_in_a_row + 1
        self.process = None
        delay = back_off(self.deaths_in_a_row)
        self.restart_at = now + delay
        return delay


def back_off(deaths_in_a_row: int) -> float:
    """Say how many seconds a child rests after so many deaths in a row: 0, 0.2, 0.4 … up to 10."""
    if deaths_in_a_row <= 1:
        return 0.0
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(deaths_in_a_row - 2, 16)))


class Supervisor:
    """Keeps a set of children alive until it is told to stop."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._stop_asked = 0
        self._stopping = False

    def child(self, name: str) -> Child:
        """Give a child by name."""
        return self._children[name]

    def start(self, spec: ChildSpec) -> Child:
        """Start a child and keep it alive from now on."""
        child = Child(spec)
        self._children[spec.name] = child
        self._launch(child)
        return child

    def ask_stop(self) -> None:
        """Ask `run` to stop everything; asked twice, it no longer waits for what is in progress. Safe in signals."""
        self._stop_asked += 1
        self.wake()

    def wake(self) -> None:
        """Make a waiting `turn` come back. Safe in signals and from other threads."""
        with contextlib.suppress(BlockingIOError):  # The pipe is full of earlier calls: the turn comes back anyway.
            os.write(self._wake_write, b"!")

    def listen_to_signals(self) -> None:
        """Take SIGINT, SIGTERM and SIGHUP as the wish to stop. Call from the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: self.ask_stop())

    @property
    def stop_asked(self) -> bool:
        """Say whether somebody wants everything to end."""
        return self._stop_asked > 0

    def run(self) -> None:
        """Keep the children alive until `ask_stop`, then stop them in order."""
        while not self.stop_asked:
            self.turn(1.0)
        self.stop()

    def wait_until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Keep the children alive until `is_so`; give false when it did not come true in time or a stop was asked."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.stop_asked or time.monotonic() > deadline:
                return False
            self.turn(0.02)
        return True

    def turn(self, longest: float) -> None:
        """Do what is due once: pass on output, notice deaths, start again. Waits `longest` seconds at most."""
        now = time.monotonic()
        resting = [child.restart_at - now for child in self._children.values() if child.restart_at is not None]
        for key, _ in self._selector.select(max(0.0, min([longest, *resting]))):
            if key.data is None:
                os.read(self._wake_read, 4096)
            else:
                self._read(key.data, key.fileobj)
        now = time.monotonic()
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.restart_at is not None and child.restart_at <= now and not self._stopping:
                self._launch(child)

    def stop(self) -> None:
        """Stop all children, rank by rank; who does not end within its grace is killed."""
        self._stopping = True
        for child in self._children.values():
            child.restart_at = None
        for rank in sorted({child.spec.stop_rank for child in self._children.values()}):
            self._stop_rank([child for child in self._children.values() if child.spec.stop_rank == rank])
        self._selector.unregister(self._wake_read)
        for end in (self._wake_read, self._wake_write):
            os.close(end)
        self._selector.close()

    def _stop_rank(self, children: list[Child]) -> None:
        started = time.monotonic()
        for child in children:
            _signal(child, child.spec.stop_signal)
        while any(child.process is not None for child in children):
            for child in children:
                hurried = self._stop_asked > 1 and not child.spec.never_hurried
                if hurried or time.monotonic() - started > child.spec.grace:
                    _signal(child, signal.SIGKILL)
            self.turn(0.02)

    def _launch(self, child: Child) -> None:
        now = time.monotonic()
        try:
            child.start(now)
        except OSError as error:
            child.started_at = now
            self._sink("stepwell", f"{child.spec.name} could not be started: {error}")
            child.died(now)
            return
        assert child.process is not None
        assert child.process.stdout is not None
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None
        assert child.process.stdout is not None
        output, code = child.process.stdout, child.process.returncode
        self._read(child, output)
        if child.partial:
            self._sink(child.spec.name, child.partial.decode("utf-8", "replace"))
            child.partial = b""
        if output.fileno() in self._selector.get_map():
            self._selector.unregister(output)
        output.close()
        delay = child.died(now)
        if self._stopping:
            child.restart_at = None
            return
        how = f"signal {-code}" if code < 0 else f"code {code}"
        when = f"in {delay:.1f} s" if delay else "at once"
        self._sink("stepwell", f"{child.spec.name} ended with {how}; starting it again {when}")

    def _read(self, child: Child, output: object) -> None:
        """Pass on the complete lines that are there now; a closed pipe is no longer listened to."""
        assert child.process is not None
        stream: IO[bytes] | None = child.process.stdout
        if stream is None or stream is not output:
            return
        while True:
            try:
                chunk = os.read(stream.fileno(), 65_536)
            except BlockingIOError:
                return
            if not chunk:
                if stream.fileno() in self._selector.get_map():
                    self._selector.unregister(stream)
                return
            *lines, child.partial = (child.partial + chunk).split(b"\n")
            if len(child.partial) > LONGEST_LINE:
                lines, child.partial = [*lines, child.partial], b""
            for line in lines:
                self._sink(child.spec.name, line.decode("utf-8", "replace").rstrip("\r"))


def _signal(child: Child, number: signal.Signals) -> None:
    """Send a signal; a KILL goes to the whole session of the child, so that its own children go too."""
    if child.process is None or child.process.poll() is not None:
        return
    try:
        if number is signal.SIGKILL:
            os.killpg(child.process.pid, number)
        else:
            child.process.send_signal(number)
    except ProcessLookupError:
        pass  # It ended between our look and our signal.


def _die_with_parent(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """Give what a child does before it becomes its program: ask for a signal at our death (Linux only)."""
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)  # We died before the question was asked.

    return ask
