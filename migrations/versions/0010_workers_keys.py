"""The key that a worker registered with: its attempts take no other"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("key_id", sa.String(16), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "key_id")
