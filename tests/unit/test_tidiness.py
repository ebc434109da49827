"""What may never be in this repository, and what must be."""

import importlib
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

from app.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = 700_000
"""Nothing that a person edits is larger; the pinned requirements and one vendored checker are the largest files."""

# Written in pieces, so that this file does not find itself.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
    )
)
MACHINE_PATH = re.compile(
    "|".join(f"(?<![A-Za-z0-9._~/$}})-])/{folder}/" for folder in ("wo" + "rk", "ro" + "ot", "ho" + "me"))
)
"""Paths of the machine something was written on. A path inside a URL or below a variable is none."""
INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host|^registry\s*=", re.MULTILINE)


@cache
def tracked() -> tuple[Path, ...]:
    """List what is tracked or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        check=True,
        capture_output=True,
        cwd=ROOT,
    ).stdout.decode()
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Give name and content of every tracked text."""
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found.append((str(path.relative_to(ROOT)), content.decode("utf-8", "replace")))
    return tuple(found)


def test_no_file_names_a_package_registry() -> None:
    assert [(name, host) for name, text in texts() for host in REGISTRY_HOSTS if host in text] == []


def test_requirement_files_hold_hashes_and_no_index_option() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        pinned = re.findall(r"^[a-z0-9][a-z0-9._\[\]-]*==", text, re.MULTILINE | re.IGNORECASE)
        options = [line for line in text.splitlines() if INDEX_OPTION.search(line) and not line.startswith("#")]
        assert len(pinned) > 20
        assert text.count("--hash=sha256:") >= len(pinned)
        assert options == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    found = [
        (name, hit.group()) for name, text in texts() if not _is_foreign(name) for hit in MACHINE_PATH.finditer(text)
    ]
    assert found == []


def test_lock_files_that_hold_addresses_are_not_committed() -> None:
    names = {path.name for path in tracked()}
    assert names & {"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "yarn.lock"} == set()
    for name, text in texts():
        if name.endswith("package-lock.json"):
            assert '"resolved": "http' not in text, name


def test_no_file_is_large() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > LARGEST_BYTES]
    assert large == []


def test_no_conflict_marker_and_no_carriage_return_is_left() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    own = [(name, text) for name, text in texts() if not _is_foreign(name)]
    assert [name for name, text in own if any(line.startswith(marks) for line in text.splitlines())] == []
    assert [name for name, text in own if "\r\n" in text] == []


def test_the_entry_points_exist_and_can_be_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for target in project["project"]["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("target", ["setup", "demo", "test", "test-all", "check", "fmt", "bench", "chaos"])
def test_make_lists_its_targets(target: str) -> None:
    listed = subprocess.run(["make"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert re.search(rf"^  make {target} +\S", listed, re.MULTILINE)


def test_every_command_is_importable_and_has_a_line_of_help() -> None:
    for target, line in COMMANDS.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert line.endswith(".")


def _is_foreign(name: str) -> bool:
    return name.startswith(("tests/vendor/", "static/vendor/"))
