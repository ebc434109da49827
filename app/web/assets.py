"""The browser's files: joined, hashed and served so that a browser never asks twice for the same one.

The hash covers the whole `static/` folder and stands in the path (`/static/{hash}/css/app.css`), so relative addresses
inside style sheets and modules need no rewriting, and every answer may be kept for a year. `app.css` and `app.js` are
lists of imports; the server joins them, because ten small requests cost a phone more than one.
Templates come here through the global `asset()`; nothing else knows where files lie.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

#: Beside the package in a checkout and in an installed wheel alike.
STATIC = Path(__file__).resolve().parents[2] / "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
_CSS_IMPORT = re.compile(r'^@import "([\w.-]+)";$', re.MULTILINE)
_JS_IMPORT = re.compile(r'^import "\./([\w.-]+)";$', re.MULTILINE)
#: Comments that have lines of their own; they are for who reads the source, and were a fifth of what went over the wire.
_JS_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*[\s\S]*?\*/[ \t]*)\n", re.MULTILINE)
#: What holds an address with a hash in it may be kept for a year.
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it goes over the wire; `packed` is None where gzip would not help (fonts)."""

    content: bytes
    packed: bytes | None
    media_type: str


class Assets:
    """All of `static/`, read once at start (about 250 KB); with `watches`, again whenever a file changes (dev)."""

    def __init__(self, root: Path = STATIC, *, watches: bool = False) -> None:
        self._root = root
        self._watches = watches
        self._files: dict[str, Asset] = {}
        self._stamp: tuple[float, ...] = ()
        #: Twelve hex digits; part of every address.
        self.version = ""
        self._read()

    def url(self, name: str) -> str:
        """The address of a file below `static/`; KeyError when there is none, so that a typing error fails a test."""
        if self._watches and self._stamp != self._now():
            self._read()
        if name not in self._files:
            raise KeyError(f"no such file below static/: {name}")
        return f"/static/{self.version}/{name}"

    def find(self, name: str) -> Asset | None:
        """The file, or None; looks in memory only, so no path can leave the folder."""
        return self._files.get(name)

    def _read(self) -> None:
        self._stamp = self._now()
        self._files = {path.relative_to(self._root).as_posix(): _load(path) for path in self._paths()}
        digest = hashlib.sha256()
        for name, file in self._files.items():
            digest.update(name.encode() + b"\x00" + hashlib.sha256(file.content).digest())
        self.version = digest.hexdigest()[:12]

    def _paths(self) -> list[Path]:
        return [path for path in sorted(self._root.rglob("*")) if path.suffix in _TYPES and path.is_file()]

    def _now(self) -> tuple[float, ...]:
        return tuple(path.stat().st_mtime for path in self._paths()) if self._watches else ()


def _load(path: Path) -> Asset:
    content = path.read_bytes()
    if path.name == "app.css":
        content = _CSS_IMPORT.sub(lambda m: (path.parent / m[1]).read_text(encoding="utf-8"), content.decode()).encode()
    elif path.name == "app.js":
        # A block keeps each module's names to itself, as separate files would.
        joined = _JS_IMPORT.sub(
            lambda m: "{\n" + (path.parent / m[1]).read_text(encoding="utf-8") + "}", content.decode()
        )
        content = _JS_COMMENT.sub("", joined).encode()
    packed = None if path.suffix == ".woff2" else gzip.compress(content, 9, mtime=0)
    return Asset(content, packed, _TYPES[path.suffix])


@get("/static/{version:str}/{name:path}", include_in_schema=False, sync_to_thread=False)
def serve_asset(request: Request[Any, Any, Any], version: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Answer a file of `app.state.assets`; one asked for under an old hash is served, but not to be kept."""
    assets: Assets = request.app.state.assets
    file = assets.find(name.lstrip("/"))
    if file is None:
        raise NotFoundException
    headers = {
        "Cache-Control": _FOR_EVER if version == assets.version else "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if file.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, media_type=file.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.media_type, headers=headers)
