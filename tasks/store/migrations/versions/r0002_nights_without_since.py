"""A night no longer keeps which night was the last promoted one: the champion's own tag in the registry says it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Drop it. No constraint or index names it, so SQLite too drops it in place."""
    op.drop_column("nights", "since")


def downgrade() -> None:
    """Bring it back as it was: a domain's nights follow one another, so the nights before one had all ended."""
    op.add_column("nights", sa.Column("since", Number, nullable=False, server_default="0"))
    op.execute(
        """
        UPDATE nights SET since = COALESCE((
            SELECT MAX(earlier.number) FROM nights AS earlier
            WHERE earlier.domain = nights.domain AND earlier.number < nights.number AND earlier.outcome = 'promote'
        ), 0)
        """
    )
