"""A correction may say its question in other words; none of those given before does."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column, in place, with its check in the same statement: SQLite adds none to a table that is there."""
    check = "CONSTRAINT ck_feedback_other_words_of_correction CHECK (other_words IS NULL OR kind = 'correction')"
    op.execute(f"ALTER TABLE feedback ADD COLUMN other_words TEXT {check}")
