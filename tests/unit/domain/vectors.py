"""Where the recorded facts of the wire lie, and how their captures are read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def exchanges(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every request with its answer in a capture file, with a path that names it."""
    yield from _walk("", load(name))


def _walk(path: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from _walk(f"{path}[{index}]", part)
    elif isinstance(node, dict) and "response" in node and "request" in node:
        yield path, node
    elif isinstance(node, dict):
        for key, part in node.items():
            yield from _walk(f"{path}.{key}" if path else key, part)


def wire_body(body: Any) -> bytes:
    """The bytes of a recorded body; captures hold JSON bodies decoded, and an empty body as an empty text."""
    if body is None or body == "":
        return b""
    return json.dumps(body).encode()
