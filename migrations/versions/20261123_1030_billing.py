"""Usage by the day, and what is known of subscriptions."""

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

revision = "20261123_1030"
down_revision = "20261123_1020"


def upgrade() -> None:
    """Run the SQL file whole; the driver takes many statements only outside the prepared protocol."""
    script = (Path(__file__).parent.parent / "sql" / "0015_billing.sql").read_text(encoding="utf-8")
    await_only(op.get_bind().connection.driver_connection.execute(script))
