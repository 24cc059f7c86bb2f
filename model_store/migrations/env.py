"""Alembic's entry: runs inside the connection and transaction that `migrate` opened, all revisions or none."""

from alembic import context

from model_store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=True,  # true of SQLite too, once the driver leaves BEGIN to us (database.py)
)
with context.begin_transaction():
    context.run_migrations()
