"""Where the output of children goes: to the screen with a name before it, or to files that cannot grow for ever."""

import sys
from collections.abc import Container
from pathlib import Path

LARGEST_FILE_BYTES = 10 * 1024 * 1024
"""One log file and its predecessor of this size are kept for each child."""


class Lines:
    """Takes every line of every child; `quiet` children are only written to files."""

    def __init__(self, folder: Path, *, quiet: Container[str], prefixed: bool) -> None:
        self._folder = folder
        self._quiet = quiet
        self._prefixed = prefixed
        folder.mkdir(exist_ok=True, mode=0o700)

    def __call__(self, name: str, line: str) -> None:
        """Write one line where it belongs."""
        if name in self._quiet:
            self._keep(name, line)
        elif self._prefixed:
            print(f"{name:<9} | {line}", flush=True)
        elif line.startswith("{"):
            print(line, flush=True)
        else:
            print(f"{name}: {line}", file=sys.stderr, flush=True)

    def _keep(self, name: str, line: str) -> None:
        path = self._folder / f"{name}.log"
        if path.exists() and path.stat().st_size > LARGEST_FILE_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
