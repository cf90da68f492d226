"""A night no longer keeps which night was the last promoted one: the champion's own tag in the registry says it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Drop it. No constraint or index names it, so SQLite too drops it in place."""
    op.drop_column("nights", "since")
