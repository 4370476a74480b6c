"""PostgreSQL stores packed points as they are: compressing them took most of the time of packing.

Columns of floats that hardly repeat shrink by little; blocks that are there stay readable either way.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _store("EXTERNAL")


def downgrade() -> None:
    _store("EXTENDED")


def _store(how: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        for column in ("points", "fine", "coarse"):
            op.execute(f"ALTER TABLE metric_blocks ALTER COLUMN {column} SET STORAGE {how}")
