"""The inbox knows the names of its events, so that it can be served in turns."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

revision = "20261123_0920"
down_revision = "20261123_0910"


def upgrade() -> None:
    """Run the SQL file whole; the driver takes many statements only outside the prepared protocol."""
    script = (Path(__file__).parent.parent / "sql" / "0008_fair_inbox.sql").read_text(encoding="utf-8")
    await_only(op.get_bind().connection.driver_connection.execute(script))
