"""The end of an organization: asked for, kept after all, erased."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

revision = "20261123_1045"
down_revision = "20261123_1030"


def upgrade() -> None:
    """Run the SQL file whole; the driver takes many statements only outside the prepared protocol."""
    script = (Path(__file__).parent.parent / "sql" / "0016_endings.sql").read_text(encoding="utf-8")
    await_only(op.get_bind().connection.driver_connection.execute(script))
