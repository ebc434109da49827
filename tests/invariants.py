"""What must always hold, asked of a real database: the blocks of `docs/invariants.sql`, by name.

Every test that moves runs ends with `violations`; an empty list is the only good answer.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "docs" / "invariants.sql"
#: `-- I9-final: …` opens a block; ordinary comments have a lower-case word or no colon there.
_HEAD = re.compile(r"^-- ([A-Z][A-Z0-9]+(?:-[a-z]+)?): (.+)$", re.MULTILINE)


@cache
def blocks() -> dict[str, str]:
    """Each block's query by its name, in the order of the file."""
    text = FILE.read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {head[1]: text[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)}


async def violations(connection: Any, *, but: frozenset[str] = frozenset()) -> list[str]:
    """One line for each block that returned rows, with the first of them; all blocks see the same moment.

    `connection` is one of the owner or of the engine's role: others do not see every tenant. `but` names blocks that
    do not apply (a limit was lowered on purpose).
    """
    found: list[str] = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for name, query in blocks().items():
            if name in but:
                continue
            rows = await connection.fetch(query)
            if rows:
                found.append(f"{name}: {len(rows)} rows, the first is {dict(rows[0])}")
    return found
