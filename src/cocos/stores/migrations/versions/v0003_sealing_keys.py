# SPDX-License-Identifier: Apache-2.0
"""Data keys, wrapped by a root key that is not here."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sealing_key",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False, comment="current, retiring or retired"),
        sa.Column("changed", sa.BigInteger, nullable=False, comment="microseconds since 1970"),
    )
