"""A reaction can be taken back, and a correction accepted; none of those given before is either."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, in place."""
    for name in ("withdrawn_at", "accepted_at"):
        op.add_column("feedback", sa.Column(name, sa.DateTime(timezone=True)))
    op.add_column("feedback", sa.Column("accepted_by", sa.Text()))
