"""Machines of pretence: a network namespace each, joined by a bridge that only they can see.

    switch 10.77.0.1 ──┬── stores ── web ── app ── worker-1 ── worker-2      (10.77.0.2 and up, one eth0 each)
                       │
                       └── one veth pair per machine; `cut` takes its link down

Everything lives in namespaces without a name: of this process and of what it starts. The kernel takes them away with the
last of these processes, however it ended, so nothing can stay behind, and nothing here is seen by the machine's own
network. There is no way out of it: no route, no address of the outside.

A process enters its machine by being started while the starting thread is in it (namespaces belong to threads), so
`inside` must not be held across an `await`.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_PREFIX = "10.77.0"
SWITCH_ADDRESS = f"{_PREFIX}.1"
SUBNET = f"{_PREFIX}.0/24"
_TRIED = "ip link add name sw type bridge && ip link add name va type veth peer name vb"


def own_network() -> list[str]:
    """The words before a command that give it a network of its own; an ordinary user gets the rights for that alone."""
    rights = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *rights, "--net", "--"]


def what_is_missing() -> str:
    """Why machines of pretence cannot be made here, in a sentence for whoever runs the tests; empty when they can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"two machines need Linux with the program `{program}` (util-linux, iproute2)"
    tried = subprocess.run(
        [*own_network(), "sh", "-c", _TRIED], check=False, capture_output=True, text=True, timeout=30
    )
    if tried.returncode == 0:
        return ""
    return f"two machines need network namespaces, which this system does not allow: {tried.stderr.strip()}"


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace: its `address`, the handle that enters it, and its port of the switch."""

    name: str
    address: str
    handle: int
    port: str


class Network:
    """The switch and its machines. Made in a process that was started behind `own_network()`."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._here = _handle()
        _ip("link set lo up")
        _ip("link add name switch type bridge stp_state 0 forward_delay 0")
        _ip(f"addr add {SWITCH_ADDRESS}/24 dev switch")
        _ip("link set switch up")

    def add(self, name: str) -> Machine:
        """Plug in a new machine."""
        number = len(self.machines) + 2
        self._call(self._libc.unshare(_CLONE_NEWNET))
        try:
            machine = Machine(name, f"{_PREFIX}.{number}", _handle(), f"port{number}")
        finally:
            self._enter(self._here)
        _ip(f"link add name {machine.port} type veth peer name eth0 netns /proc/{os.getpid()}/fd/{machine.handle}")
        _ip(f"link set {machine.port} master switch up")
        with self.inside(machine):
            _ip("link set lo up")
            _ip(f"addr add {machine.address}/24 dev eth0")
            _ip("link set eth0 up")
        self.machines[name] = machine
        return machine

    @contextmanager
    def inside(self, machine: Machine) -> Iterator[None]:
        """Be in a machine: what is started here lives there."""
        self._enter(machine.handle)
        try:
            yield
        finally:
            self._enter(self._here)

    def cut(self, machine: Machine) -> None:
        """Pull the cable. Nobody is told: connections stay open on both sides, and nothing arrives."""
        _ip(f"link set {machine.port} down")

    def mend(self, machine: Machine) -> None:
        """Put the cable back."""
        _ip(f"link set {machine.port} up")

    def _enter(self, handle: int) -> None:
        self._call(self._libc.setns(handle, _CLONE_NEWNET))

    def _call(self, result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _handle() -> int:
    """Open the namespace this thread is in; as long as that is open, it stays."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], check=False, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"ip {words}: {done.stderr.strip()}")
