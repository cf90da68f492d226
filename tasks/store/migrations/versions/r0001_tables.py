"""The first tables: identities, conversations, drafts, answers, nights, feedback, ledger, approvals."""
# Values are checked by name here, not imported: a migration never changes with the code.

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make them."""
    _people()
    _answers()
    _nights()
    _feedback()
    _ledger()
    _approvals()


def _people() -> None:
    op.create_table(
        "identities",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("disabled_at", Moment),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("name", name="uq_identities_name"),
        sa.CheckConstraint("role IN ('chat', 'review', 'admin')", name=op.f("ck_identities_role_known")),
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("identity_id", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identities.id"], name="fk_conversations_identity_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_conversations_identity_id", "conversations", ["identity_id"])
    op.create_table(
        "drafts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("how", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_drafts"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_drafts_conversation_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("how IN ('sample', 'challenger')", name=op.f("ck_drafts_how_known")),
    )
    op.create_index("ix_drafts_conversation_id", "drafts", ["conversation_id"])


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("identity_id", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("prompt_sha256", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("first_token_ms", sa.Float),
        sa.Column("latency_ms", sa.Float),
        sa.Column("draft_id", sa.Text),
        sa.Column("position", sa.Integer),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_answers_conversation_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_answers_identity_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["draft_id"], ["drafts.id"], name="fk_answers_draft_id", ondelete="CASCADE"),
        sa.UniqueConstraint("draft_id", "position", name="uq_answers_draft_id_position"),
        sa.CheckConstraint("(draft_id IS NULL) = (position IS NULL)", name=op.f("ck_answers_position_in_draft")),
        sa.CheckConstraint("position IN (0, 1)", name=op.f("ck_answers_position_known")),
        sa.CheckConstraint(
            "finish_reason IN ('stop', 'length', 'cancelled', 'error')", name=op.f("ck_answers_finish_reason_known")
        ),
        sa.CheckConstraint("who IN ('champion', 'challenger', 'sample')", name=op.f("ck_answers_who_known")),
    )
    op.create_index("ix_answers_conversation_id", "answers", ["conversation_id"])
    op.create_index("ix_answers_identity_id", "answers", ["identity_id"])


def _nights() -> None:
    op.create_table(
        "nights",
        sa.Column("number", Number, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("closed_at", Moment),
        sa.Column("outcome", sa.Text),
        sa.Column("snapshot", sa.Text),
        sa.Column("since", Number, nullable=False),
        sa.Column("flow_run_id", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_nights"),
        sa.CheckConstraint(
            "outcome IN ('skip', 'promote', 'hold', 'reject', 'failed', 'nothing')",
            name=op.f("ck_nights_outcome_known"),
        ),
        sa.CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name=op.f("ck_nights_closed_with_outcome")),
        sqlite_autoincrement=True,
    )
    unfinished = sa.text("closed_at IS NULL")
    op.create_index(
        "uq_nights_unfinished",
        "nights",
        ["domain"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("seq", Number, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("answer_id", sa.Text, nullable=False),
        sa.Column("identity_id", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("thumb", sa.Integer),
        sa.Column("rating", sa.Integer),
        sa.Column("text", sa.Text),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("night", Number),
        sa.PrimaryKeyConstraint("seq", name="pk_feedback"),
        sa.UniqueConstraint("id", name="uq_feedback_id"),
        sa.UniqueConstraint("identity_id", "key", name="uq_feedback_identity_id_key"),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name="fk_feedback_answer_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name="fk_feedback_identity_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["night"], ["nights.number"], name="fk_feedback_night"),
        sa.CheckConstraint(
            "kind IN ('thumb', 'rating', 'correction', 'comment', 'choice')", name=op.f("ck_feedback_kind_known")
        ),
        sa.CheckConstraint("thumb IN (-1, 1)", name=op.f("ck_feedback_thumb_known")),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_feedback_rating_known")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_answer_id", "feedback", ["answer_id"])
    op.create_index("ix_feedback_domain_night", "feedback", ["domain", "night"])


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("seq", Number, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("digest", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_ledger"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ledger_domain_seq", "ledger", ["domain", "seq"])


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", Number, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("night", Number),
        sa.Column("asked_at", Moment, nullable=False),
        sa.Column("decided_at", Moment),
        sa.Column("approved", sa.Boolean),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.ForeignKeyConstraint(["night"], ["nights.number"], name="fk_approvals_night"),
        sa.CheckConstraint("(decided_at IS NULL) = (approved IS NULL)", name=op.f("ck_approvals_decided_with_answer")),
        sqlite_autoincrement=True,
    )
    undecided = sa.text("decided_at IS NULL")
    op.create_index(
        "uq_approvals_open",
        "approvals",
        ["domain", "version"],
        unique=True,
        sqlite_where=undecided,
        postgresql_where=undecided,
    )


def downgrade() -> None:
    """Drop them, and all that is in them."""
    for table in ("approvals", "ledger", "feedback", "nights", "answers", "drafts", "conversations", "identities"):
        op.drop_table(table)
