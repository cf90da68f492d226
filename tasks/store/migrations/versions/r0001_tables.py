"""The first tables: identities, conversations, drafts, answers, nights, feedback, ledger, approvals."""
# Values are checked by name here, not imported: a migration never changes with the code.

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Moment = sa.DateTime(timezone=True)


def _table(name: str, key: str, columns: str, *constraints: sa.Constraint, numbered: bool = False) -> None:
    """Make a table. `columns` are `name:type`, text without a type; a question mark allows null."""
    types: dict[str, Any] = {
        "": sa.Text,
        "int": sa.Integer,
        "float": sa.Float,
        "bool": sa.Boolean,
        "number": Number,
        "moment": Moment,
    }
    made: list[Any] = []
    for column in columns.split():
        called, _, kind = column.rstrip("?").partition(":")
        made.append(sa.Column(called, types[kind], nullable=column.endswith("?")))
    primary = sa.PrimaryKeyConstraint(key, name=f"pk_{name}")
    op.create_table(name, *made, primary, *constraints, sqlite_autoincrement=numbered)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _refers(table: str, column: str, to: str, ondelete: str | None = "CASCADE") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [to], name=f"fk_{table}_{column}", ondelete=ondelete)


def _at_most_one(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=True, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    """Make them."""
    _conversations()
    _answers()
    _nights()
    _feedback()
    _ledger()
    _approvals()


def _conversations() -> None:
    _table(
        "identities",
        "id",
        "id name role key_sha256 created_at:moment disabled_at:moment?",
        sa.UniqueConstraint("name", name="uq_identities_name"),
        _check("identities", "role_known", "role IN ('chat', 'review', 'admin')"),
    )
    _table(
        "conversations",
        "id",
        "id identity_id domain created_at:moment",
        _refers("conversations", "identity_id", "identities.id"),
    )
    op.create_index("ix_conversations_identity_id", "conversations", ["identity_id"])
    _table(
        "drafts",
        "id",
        "id conversation_id how created_at:moment",
        _refers("drafts", "conversation_id", "conversations.id"),
        _check("drafts", "how_known", "how IN ('sample', 'challenger')"),
    )
    op.create_index("ix_drafts_conversation_id", "drafts", ["conversation_id"])


def _answers() -> None:
    _table(
        "answers",
        "id",
        "id conversation_id identity_id domain messages text version digest prompt_sha256 finish_reason "
        "prompt_tokens:int? completion_tokens:int? first_token_ms:float? latency_ms:float? draft_id? position:int? "
        "who created_at:moment",
        _refers("answers", "conversation_id", "conversations.id"),
        _refers("answers", "identity_id", "identities.id"),
        _refers("answers", "draft_id", "drafts.id"),
        sa.UniqueConstraint("draft_id", "position", name="uq_answers_draft_id_position"),
        _check("answers", "position_in_draft", "(draft_id IS NULL) = (position IS NULL)"),
        _check("answers", "position_known", "position IN (0, 1)"),
        _check("answers", "finish_reason_known", "finish_reason IN ('stop', 'length', 'cancelled', 'error')"),
        _check("answers", "who_known", "who IN ('champion', 'challenger', 'sample')"),
    )
    op.create_index("ix_answers_conversation_id", "answers", ["conversation_id"])
    op.create_index("ix_answers_identity_id", "answers", ["identity_id"])


def _nights() -> None:
    outcomes = "'skip', 'promote', 'hold', 'reject', 'failed', 'nothing'"
    _table(
        "nights",
        "number",
        "number:number domain started_at:moment closed_at:moment? outcome? snapshot? since:number flow_run_id version? "
        "reason rows:int",
        _check("nights", "outcome_known", f"outcome IN ({outcomes})"),
        _check("nights", "closed_with_outcome", "(closed_at IS NULL) = (outcome IS NULL)"),
        numbered=True,
    )
    _at_most_one("uq_nights_unfinished", "nights", ["domain"], "closed_at IS NULL")


def _feedback() -> None:
    _table(
        "feedback",
        "seq",
        "seq:number id key answer_id identity_id domain kind thumb:int? rating:int? text? created_at:moment "
        "night:number?",
        sa.UniqueConstraint("id", name="uq_feedback_id"),
        sa.UniqueConstraint("identity_id", "key", name="uq_feedback_identity_id_key"),
        _refers("feedback", "answer_id", "answers.id"),
        _refers("feedback", "identity_id", "identities.id"),
        _refers("feedback", "night", "nights.number", None),
        _check("feedback", "kind_known", "kind IN ('thumb', 'rating', 'correction', 'comment', 'choice')"),
        _check("feedback", "thumb_known", "thumb IN (-1, 1)"),
        _check("feedback", "rating_known", "rating BETWEEN 1 AND 5"),
        numbered=True,
    )
    op.create_index("ix_feedback_answer_id", "feedback", ["answer_id"])
    op.create_index("ix_feedback_domain_night", "feedback", ["domain", "night"])


def _ledger() -> None:
    columns = "seq:number domain event version? digest? actor reason detail? created_at:moment"
    _table("ledger", "seq", columns, numbered=True)
    op.create_index("ix_ledger_domain_seq", "ledger", ["domain", "seq"])


def _approvals() -> None:
    _table(
        "approvals",
        "id",
        "id:number domain version digest night:number? asked_at:moment decided_at:moment? approved:bool? decided_by "
        "reason",
        _refers("approvals", "night", "nights.number", None),
        _check("approvals", "decided_with_answer", "(decided_at IS NULL) = (approved IS NULL)"),
        numbered=True,
    )
    _at_most_one("uq_approvals_open", "approvals", ["domain", "version"], "decided_at IS NULL")
