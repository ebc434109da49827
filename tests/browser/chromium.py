"""Finds a Chromium for the browser tests, fetching one if the machine has none.

In order: one on the PATH; apt, when we are root; the npm package `@sparticuz/chromium`; playwright's own installer. If
none works, browser tests are reported as not run, and as failed under continuous integration (`CI` set).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".tools" / "chromium"
"""Where a fetched Chromium stays between test runs."""
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FETCH_WITHIN = 300
"""Seconds for one way of fetching it."""

_UNPACK = """
const chromium = require('@sparticuz/chromium');
(chromium.default ?? chromium).executablePath().then((path) => console.log(path));
"""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser that starts, and the arguments it needs here."""

    path: Path
    arguments: tuple[str, ...]


class ChromiumMissing(Exception):
    """No Chromium could be found or fetched. The message lists what was tried and why it failed."""


def find() -> Chromium:
    """Give a Chromium that was seen to start. Raises `ChromiumMissing`."""
    tried: list[str] = []
    ways: tuple[tuple[str, Callable[[], Path | None]], ...] = (
        ("PATH", _on_path),
        ("apt", _by_apt),
        ("npm", _by_npm),
        ("playwright", _by_playwright),
    )
    for name, way in ways:
        try:
            path = way()
        except (OSError, subprocess.SubprocessError) as error:
            tried.append(f"{name}: {error}")
            continue
        if path is None:
            tried.append(f"{name}: none")
        elif not _starts(path):
            tried.append(f"{name}: {path} does not start")
        else:
            return Chromium(path, _arguments())
    raise ChromiumMissing("; ".join(tried))


def _arguments() -> tuple[str, ...]:
    """Chromium refuses its sandbox to root, and containers have a small /dev/shm."""
    return ("--no-sandbox", "--disable-dev-shm-usage") if os.geteuid() == 0 else ("--disable-dev-shm-usage",)


def _starts(path: Path) -> bool:
    try:
        shown = subprocess.run(
            [path, "--headless", *_arguments(), "--dump-dom", "about:blank"],
            check=False,
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return shown.returncode == 0 and b"<html" in shown.stdout


def _on_path() -> Path | None:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found) if found else None


def _by_apt() -> Path | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], environ)
    _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"], environ)
    return _on_path()


def _by_npm() -> Path | None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    KEPT.mkdir(parents=True, exist_ok=True)
    if not (KEPT / "node_modules").exists():
        _run(
            [npm, "install", "--prefix", str(KEPT), "--no-audit", "--no-fund", "@sparticuz/chromium"], dict(os.environ)
        )
    unpacked = _run([node, "-e", _UNPACK], dict(os.environ), KEPT).strip()
    return Path(unpacked) if unpacked else None


def _by_playwright() -> Path | None:
    environ = os.environ | {"PLAYWRIGHT_BROWSERS_PATH": str(KEPT / "playwright")}
    _run([sys.executable, "-m", "playwright", "install", "chromium-headless-shell"], environ)
    found = sorted((KEPT / "playwright").glob("chromium_headless_shell-*/*/*headless*shell*"))
    return next((path for path in found if os.access(path, os.X_OK) and path.is_file()), None)


def _run(command: list[str], environ: dict[str, str], folder: Path | None = None) -> str:
    done = subprocess.run(
        command, check=True, env=environ, cwd=folder, timeout=FETCH_WITHIN, capture_output=True, text=True
    )
    return done.stdout
