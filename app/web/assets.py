"""Addresses of static files with a version in them, so that browsers may keep them for ever."""

import functools
import hashlib
from pathlib import Path


class Assets:
    """Knows the folder `static/`. Templates use it as `{{ asset('css/app.css') }}`."""

    def __init__(self, folder: Path, *, watches: bool) -> None:
        """`watches` reads a file again for each address, so that an edit shows at once (dev)."""
        self._folder = folder
        self._version = self._read if watches else functools.cache(self._read)

    def url(self, name: str) -> str:
        """The address of a file below the folder. A file that is missing has no version, and answers 404."""
        version = self._version(name)
        return f"/static/{name}?v={version}" if version else f"/static/{name}"

    def _read(self, name: str) -> str:
        try:
            return hashlib.sha256((self._folder / name).read_bytes()).hexdigest()[:12]
        except OSError:
            return ""
