"""Alembic's entry: runs migrations over the connection that tasks/store/migrate.py gives, in its transaction."""

from __future__ import annotations

from alembic import context

from tasks.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
