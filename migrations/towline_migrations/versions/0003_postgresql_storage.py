"""How PostgreSQL keeps the rows: texts in the order of their bytes, room for updates, vacuum before bloat.

The order of bytes is that of SQLite, compares fastest, and no upgrade of the operating system changes it under an
index. Does nothing elsewhere.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLLATE = """
DO $$
DECLARE changes record;
BEGIN
  FOR changes IN
    SELECT table_name, string_agg(format('ALTER COLUMN %I TYPE text COLLATE {collation}', column_name), ', ') AS actions
    FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type = 'text'
    GROUP BY table_name
  LOOP
    EXECUTE format('ALTER TABLE %I %s', changes.table_name, changes.actions);
  END LOOP;
END $$
"""

# Their rows are written again and again while a run moves, and then never.
_BUSY = ("runs", "steps", "attempts", "run_logs", "attempt_logs")
_STORAGE = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.05,
    "autovacuum_analyze_scale_factor": 0.05,
}


def upgrade() -> None:
    """Sets collation and storage parameters."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(_COLLATE.format(collation='"C"'))
    for table in _BUSY:
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {value}' for name, value in _STORAGE.items())})")


def downgrade() -> None:
    """Takes both back."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _BUSY:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(_STORAGE)})")
    op.execute(_COLLATE.format(collation='"default"'))
