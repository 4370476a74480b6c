"""From where on logs and metric events of a run are kept"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("log_start", "metric_start"):
        op.add_column("runs", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """What was not kept stays gone; older versions show the holes as nothing."""
    for name in ("metric_start", "log_start"):
        op.drop_column("runs", name)
