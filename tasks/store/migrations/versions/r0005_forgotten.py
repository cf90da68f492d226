"""The names of what was forgotten are kept as hashes; nothing was before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    columns = [sa.Column(name, sa.Text(), nullable=False) for name in ("certificate", "domain", "name_sha256")]
    key = sa.PrimaryKeyConstraint("certificate", "domain", "name_sha256", name="pk_forgotten")
    op.create_table("forgotten", *columns, key)
