# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL need not log sessions: a crash empties the table, and clients attest again."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change how PostgreSQL keeps the table."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE session SET UNLOGGED")
