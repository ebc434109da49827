"""Bring a database to the newest schema: `stepwell migrate`, and every start of `dev` and `up`.

Alembic is imported only when something is to do, because importing it costs most of a warm start.
"""

import asyncio
from pathlib import Path

import asyncpg

#: Where the migrations lie: beside the package in a checkout and in an installed wheel alike.
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def newest() -> str:
    """The revision this code expects, read from the file names."""
    return max(p.stem for p in (MIGRATIONS / "versions").glob("2*.py"))[:13]


async def current(database_url: str) -> str | None:
    """The revision the database is at; None when it has no schema yet. Raises what asyncpg raises when unreachable."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        if await connection.fetchval("select to_regclass('alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("select version_num from alembic_version")
        return revision
    finally:
        await connection.close()


def upgrade(database_url: str) -> list[str]:
    """Apply what is missing and return the applied revisions, oldest first; [] when the schema is current.

    Two processes may call it at once: the second waits on an advisory lock and finds nothing to do.
    """
    before = asyncio.run(current(database_url))
    if before == newest():
        return []
    from alembic import command  # costs 0.4 s, so only when there is work
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = sqlalchemy_url(database_url)
    command.upgrade(config, "head")
    return sorted(
        r for r in (p.stem[:13] for p in (MIGRATIONS / "versions").glob("2*.py")) if before is None or r > before
    )


def sqlalchemy_url(database_url: str) -> str:
    """The same address for SQLAlchemy's asyncpg dialect."""
    scheme, _, rest = database_url.partition("://")
    return f"postgresql+asyncpg://{rest}" if scheme in {"postgres", "postgresql"} else database_url
