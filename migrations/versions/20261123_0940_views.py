"""Columns and saved views of the runs list; bulk actions that wait, pause and keep to a speed."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

revision = "20261123_0940"
down_revision = "20261123_0930"


def upgrade() -> None:
    """Run the SQL file whole; the driver takes many statements only outside the prepared protocol."""
    script = (Path(__file__).parent.parent / "sql" / "0010_views.sql").read_text(encoding="utf-8")
    await_only(op.get_bind().connection.driver_connection.execute(script))
