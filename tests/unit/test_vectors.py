"""The recorded facts of the wire: all are used, all are described, and what belongs together agrees."""

import json
import re
from collections.abc import Iterator
from hashlib import sha1
from typing import Any

import pytest

from tests.processes import ROOT
from tests.unit.domain.vectors import VECTORS, exchanges, load

_FILES = sorted(path.name for path in VECTORS.glob("*.json"))
_SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("tests", "sdk/tests")
    for path in sorted((ROOT / folder).rglob("test_*.py"))
    if path.name != "test_vectors.py"
}


@pytest.mark.parametrize("name", [name for name in _FILES if name != "step-ids.json"])
def test_every_file_is_used_by_a_test_that_names_it(name: str) -> None:
    stem = name.removesuffix(".json")
    # Captures are often loaded as f"capture-{name}.json" from a list of names.
    spelled = [f'"{name}"', f'"{stem.removeprefix("capture-")}"']
    users = [path.name for path, source in _SOURCES.items() if any(text in source for text in spelled)]

    assert users, f"no test reads {name}"


def test_every_file_is_described() -> None:
    text = (VECTORS / "README.md").read_text(encoding="utf-8")
    described = re.findall(r"`([\w*.-]+\.json)`", text)

    assert {name for name in _FILES if not name.startswith("capture-")} == set(described) - {"capture-*.json"}


def _steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation and every checkpointed step of the captures that says its own id."""
    for name in _FILES:
        if name.startswith("capture-") and not name.startswith(("capture-connect", "capture-streaming")):
            for path, exchange in exchanges(name):
                yield from _named(f"{name}:{path}", exchange)


def _named(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        for part in node:
            yield from _named(path, part)
    elif isinstance(node, dict):
        if "op" in node and "id" in node and isinstance(node.get("userland"), dict):
            yield path, node
        for part in node.values():
            yield from _named(path, part)


def test_step_ids_are_the_hash_of_what_the_user_called_them_and_how_often() -> None:
    """The rule of `step-ids.json`, held against every step that real SDKs reported."""

    def hashed(name: str, index: int) -> str:
        text = name if index == 0 else f"{name}:{index}"
        return sha1(text.encode(), usedforsecurity=False).hexdigest()

    for vector in load("step-ids.json"):
        assert hashed(vector["id"], vector["index"]) == vector["sha1_hex"]
    seen = 0
    for path, step in _steps():
        userland = step["userland"]
        assert step["id"] == hashed(userland["id"], userland.get("index") or 0), path
        seen += 1
    assert seen > 100


@pytest.mark.parametrize("name", ["signing.json", "step-ids.json"])
def test_the_sdks_copy_is_the_same(name: str) -> None:
    copy = json.loads((ROOT / "sdk" / "tests" / "vectors" / name).read_text(encoding="utf-8"))

    assert copy == load(name)
