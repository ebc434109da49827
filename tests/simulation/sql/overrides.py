"""sql/overrides.sql: nobody changes settings by hand here."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def over(q: Query) -> list[Row]:
    """No change by people is over."""
    return []


def unblock_lately(q: Query) -> list[Row]:
    """No change by people has ended lately."""
    return []


def changed_limits(q: Query) -> list[Row]:
    """No limit is changed by people."""
    return []
