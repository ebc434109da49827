"""A web server on loopback that plays the providers which `step.fetch` and `step.ai.infer` call."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.protocol.matrix.play import Web

OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-3-5-sonnet-latest",
    "content": [{"type": "text", "text": "four"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 1},
}


def _answer(path: str, body: Any) -> tuple[int, Any]:
    """Status and body for the path behind the column's name."""
    if path.startswith("/openai/"):
        return 200, OPENAI
    if path.startswith("/anthropic/"):
        return 200, ANTHROPIC
    if path == "/teapot":
        return 418, {"error": "short and stout"}
    if path.startswith("/refuses/"):
        return 400, {"error": {"message": "no such model", "type": "invalid_request_error"}}
    return 200, {"echo": body}


@contextmanager
def playing() -> Iterator[Web]:
    """Serve for the time of a block."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            decoded = json.loads(body) if body else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = {"method": self.command, "headers": headers, "body": decoded}
            web.asked.setdefault(self.path, []).append(asked)
            _, _, rest = self.path.removeprefix("/").partition("/")
            status, answer = _answer(f"/{rest}", decoded)
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = _serve  # noqa: N815 - the library calls them so

        def log_message(self, *_said: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
