"""What Alembic runs: migrate over the connection that `server.migrate` opened.

An async caller passes the connection of `AsyncConnection.run_sync` in the same way.
"""

from __future__ import annotations

from alembic import context

from server.models import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run `python -m server.migrate`: migrations need an open connection")
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
