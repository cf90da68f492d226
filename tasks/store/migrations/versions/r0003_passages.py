"""An answer keeps the passages that it was given from; those given before were given without."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, in place."""
    op.add_column("answers", sa.Column("passages", sa.Text()))
