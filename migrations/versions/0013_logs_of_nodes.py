"""How much of the log of a further node is stored"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("members", sa.Column("log_acked", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("members", "log_acked")
