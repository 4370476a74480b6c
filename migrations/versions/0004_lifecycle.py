"""How long runs may work, and which attempts may be continued on another host"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("max_duration_s", sa.Float(53), nullable=True))
    op.add_column("attempts", sa.Column("movable", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("seconds", sa.Float(53), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("attempts", "seconds")
    op.drop_column("attempts", "movable")
    op.drop_column("runs", "max_duration_s")
