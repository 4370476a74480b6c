"""Runs over several nodes: who takes part in an attempt, and where its workers are reached"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("nodes", "min_nodes"):
        op.add_column("runs", sa.Column(name, sa.Integer(), server_default="1", nullable=False))
    op.add_column("workers", sa.Column("address", sa.String(255), server_default="", nullable=False))
    op.add_column("attempts", sa.Column("nodes", sa.Integer(), server_default="1", nullable=False))
    op.add_column("attempts", sa.Column("endpoint", sa.String(300)))
    op.add_column("attempts", sa.Column("resume_from", sa.Text()))
    op.create_table(
        "members",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column(
            "attempt_id", sa.String(16), sa.ForeignKey("attempts.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("node", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(16), sa.ForeignKey("workers.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.String(32)),
        sa.Column("message", sa.Text()),
    )
    op.create_index("ix_members_attempt_id", "members", ["attempt_id"])
    op.create_index("ix_members_state", "members", ["state"])


def downgrade() -> None:
    op.drop_table("members")
    for name in ("resume_from", "endpoint", "nodes"):
        op.drop_column("attempts", name)
    op.drop_column("workers", "address")
    for name in ("min_nodes", "nodes"):
        op.drop_column("runs", name)
