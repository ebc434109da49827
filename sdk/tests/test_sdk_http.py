"""Connections against a real HTTP server on a socket."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stepwell._http import Connections, UnreachableError


class Handler(BaseHTTPRequestHandler):
    """Echoes the body with the port of the connection, and hangs up unannounced after a request to `/hang-up`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = f"{self.client_address[1]} {self.path} {body.decode()}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.path == "/hang-up"

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_connection_is_kept_for_the_next_request(origin: str) -> None:
    connections = Connections()
    first = connections.request("POST", f"{origin}/a?b=1", b"x", {}).body.split()
    second = connections.request("POST", f"{origin}/c", b"y", {}).body.split()
    connections.close()
    assert (first[0], first[1:], second[1:]) == (second[0], [b"/a?b=1", b"x"], [b"/c", b"y"])


def test_a_connection_the_server_has_closed_is_replaced(origin: str) -> None:
    connections = Connections()
    first = connections.request("POST", f"{origin}/hang-up", b"x", {}).body.split()
    second = connections.request("POST", f"{origin}/c", b"y", {}).body.split()
    connections.close()
    assert first[0] != second[0]


def test_no_server_is_told_as_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError):
        Connections().request("POST", f"http://127.0.0.1:{port}/", b"", {})
