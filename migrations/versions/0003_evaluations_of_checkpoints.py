"""Evaluations know their checkpoint, checkpoints where they come from; a pipeline may do without a step"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("origin", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("runs", sa.Column("optional", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("evaluations") as table:
        table.add_column(sa.Column("checkpoint_id", sa.String(length=16), nullable=True))
        table.add_column(sa.Column("stage", sa.String(length=32), nullable=True))
        table.create_foreign_key(
            op.f("fk_evaluations_checkpoint_id_checkpoints"),
            "checkpoints",
            ["checkpoint_id"],
            ["id"],
            ondelete="SET NULL",
        )
    op.create_index(op.f("ix_evaluations_checkpoint_id"), "evaluations", ["checkpoint_id"])
    op.create_index(op.f("ix_evaluations_created_at_id"), "evaluations", ["created_at", "id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_evaluations_created_at_id"), "evaluations")
    op.drop_index(op.f("ix_evaluations_checkpoint_id"), "evaluations")
    with op.batch_alter_table("evaluations") as table:
        table.drop_constraint(op.f("fk_evaluations_checkpoint_id_checkpoints"), type_="foreignkey")
        table.drop_column("stage")
        table.drop_column("checkpoint_id")
    # no batches here: on SQLite they drop the old table, and what refers to it would go with it
    op.drop_column("runs", "optional")
    op.drop_column("checkpoints", "origin")
