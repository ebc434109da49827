"""The npm package `oidc-provider` as a real process: a certified provider with pages, for the whole journey."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.supervise.state import free_port
from tests.processes import Process, await_so, environ, running
from tests.protocol.node import install, node

FOLDER = Path(__file__).with_name("node")
CLIENT, SECRET = "stepwell-tests", "a secret of the client that must never be seen"


@dataclass(frozen=True, slots=True)
class Certified:
    """A provider that runs."""

    issuer: str
    process: Process


@contextmanager
def running_provider(redirect_uri: str, folder: Path) -> Iterator[Certified]:
    """Serve one for the time of a block; it sends browsers back to `redirect_uri` and nowhere else."""
    install(FOLDER)
    port = free_port()
    settings = environ(PORT=str(port), CLIENT_ID=CLIENT, CLIENT_SECRET=SECRET, REDIRECT_URI=redirect_uri)
    with running("provider", [*node(), str(FOLDER / "provider.mjs")], settings, folder) as process:
        await_so(lambda: "provider ready" in process.said(), "the provider is ready", [process])
        yield Certified(f"http://127.0.0.1:{port}", process)
