"""A login provider that answers as a test tells it to: right by default, wrong in one thing where that is the test.

OpenID Connect at `url`, and GitHub's three addresses below the same one. Nobody signs in here: a test makes up the code.
"""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from joserfc import jwk, jwt

CLIENT, SECRET = "stepwell-tests", "a secret of the client that must never be seen"


@dataclass
class Rogue:
    """What it says. `claims` go over the right ones (None leaves one out); `codes` were exchanged already."""

    url: str = ""
    key: jwk.ECKey = field(default_factory=lambda: new_key("first"))
    published: list[jwk.ECKey] = field(default_factory=list)
    #: Who stands behind the next code, and the nonce the browser brought.
    person: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    #: Signs with this instead: "none", or a key.
    signs: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    #: Path → (status, body) that it answers with instead.
    broken: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    emails: list[dict[str, Any]] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    #: Every request: path and what came with it.
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def count(self, path: str) -> int:
        """How often an address was asked for."""
        return sum(1 for one, _ in self.asked if one == path)

    def id_token(self) -> str:
        """The token for the person."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.nonce, **self.person, **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.signs == "none":
            parts: tuple[dict[str, Any], ...] = ({"alg": "none"} | self.header, claims)
            return ".".join(urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."
        key = self.signs or self.key
        header = {"alg": "ES256", "kid": key.kid} | self.header
        return jwt.encode(header, claims, key, algorithms=[str(header["alg"])])

    def answer(self, path: str, sent: Mapping[str, str]) -> tuple[int, Any]:
        """Status and JSON for a request."""
        match path:
            case "/.well-known/openid-configuration":
                return 200, {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/keys",
                    "userinfo_endpoint": f"{self.url}/userinfo",
                } | self.metadata
            case "/keys":
                return 200, {"keys": [key.as_dict(private=False) for key in self.published or [self.key]]}
            case "/token" | "/login/oauth/access_token":
                code = sent.get("code", "")
                if code in self.codes:
                    return 400, {"error": "invalid_grant"}
                self.codes.add(code)
                token = {"access_token": "token", "token_type": "Bearer"}
                return 200, token | ({"id_token": self.id_token()} if path == "/token" else {})
            case "/userinfo":
                return 200, self.userinfo or {}
            case "/api/v3/user":
                return 200, self.person
            case "/api/v3/user/emails":
                return 200, self.emails
            case _:
                return 404, {}


def new_key(kid: str) -> jwk.ECKey:
    """A key to sign with."""
    return jwk.ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"}, private=True)


def somebody(*, verified: bool = True) -> dict[str, Any]:
    """A person that nobody knows yet, as claims."""
    word = uuid4().hex[:10]
    return {"sub": f"sub-{word}", "email": f"{word}@example.com", "email_verified": verified, "name": "Ada Example"}


@contextmanager
def running_rogue() -> Iterator[Rogue]:
    """Serve one for the time of a block."""
    rogue = Rogue()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
            path = urlsplit(self.path).path
            rogue.asked.append((path, body | {"authorization": self.headers.get("authorization", "")}))
            if path in rogue.broken:
                status, content = rogue.broken[path]
            else:
                status, document = rogue.answer(path, body)
                content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            """Stay silent."""

    # Names of the standard library's.
    for method in ("do_GET", "do_POST"):
        setattr(Handler, method, Handler._serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    rogue.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield rogue
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
