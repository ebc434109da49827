"""The environments of an account as the list and the switcher show them."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import AccountId
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Row:
    """One environment. `active_at` is when its newest run was queued; `apps` counts those not archived."""

    name: str
    slug: str
    kind: str
    archived_at: datetime | None
    active_at: datetime | None
    apps: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All environments, production first, then by name; `now` is the database's clock."""

    rows: tuple[Row, ...]
    now: datetime

    def live(self, words: str = "") -> list[Row]:
        """Those in use whose name or slug has `words` in it."""
        return [row for row in self.rows if row.archived_at is None and _has(row, words)]

    def archived(self, words: str = "") -> list[Row]:
        """Those put away whose name or slug has `words` in it."""
        return [row for row in self.rows if row.archived_at is not None and _has(row, words)]


async def list_environments(connection: Connection, account_id: AccountId) -> Listing:
    """Read at most 500 environments, each with its newest run (one look into the index per environment)."""
    rows = await connection.fetch(
        "select e.name, e.slug, e.kind, e.archived_at,"
        " (select r.queued_at from runs r where r.environment_id = e.id order by r.id desc limit 1) as active_at,"
        " (select count(*) from apps a where a.environment_id = e.id and a.archived_at is null) as apps"
        " from environments e where e.account_id = $1 order by e.kind <> 'production', e.name, e.id limit 500",
        account_id,
    )
    return Listing(tuple(Row(*row) for row in rows), await connection.fetchval("select clock()"))


def _has(row: Row, words: str) -> bool:
    return words.strip().lower() in f"{row.name}\n{row.slug}".lower()
