"""sql/bulk.sql: nobody asks for bulk actions here."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def take(q: Query) -> list[Row]:
    """No item of a bulk action."""
    return []
