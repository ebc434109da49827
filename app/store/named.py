"""Named parameters for SQL files: `:name` in the text, `$n` on the wire."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.store.db import statements

_NAME = re.compile(r"(?<!:):([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with numbered parameters, and the names in their order."""

    sql: str
    names: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The values in wire order; a missing one is a KeyError, so a typo cannot pass as null."""
        return [values[name] for name in self.names]


def compile_sql(text: str) -> Statement:
    """Number the parameters of a text by their first use."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${numbers.setdefault(match[1], len(numbers) + 1)}"

    # Comments may hold words behind a colon; they are not parameters.
    sql = _NAME.sub(number, re.sub(r"--[^\n]*", "", text))
    return Statement(sql, tuple(numbers))


@cache
def named(file: str, name: str) -> Statement:
    """The statement `name` of `sql/{file}.sql`."""
    return compile_sql(statements(file)[name])


@cache
def joined(file: str, parts: Iterable[str]) -> Statement:
    """One statement from several parts of a file (see sql/commit.sql); `parts` must be hashable."""
    return compile_sql("\n".join(statements(file)[p] for p in parts))


async def fetch(connection: Any, statement: Statement, **values: Any) -> list[Any]:
    """Run and return all rows."""
    rows: list[Any] = await connection.fetch(statement.sql, *statement.arguments(values))
    return rows
