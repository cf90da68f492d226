"""The first tables. A new database has the newest ones at once (tasks/store/migrate.py): nothing is left to do."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing."""
