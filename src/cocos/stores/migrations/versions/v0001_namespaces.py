# SPDX-License-Identifier: Apache-2.0
"""One table per namespace: key, value, when it expires."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out: a migration must not change when the program's list does.
_NAMESPACES = (
    "resource",
    "resource_policy",
    "attestation_policy",
    "reference_value",
    "session",
    "key",
    "denial",
)


def upgrade() -> None:
    """Make the tables."""
    for name in _NAMESPACES:
        op.create_table(
            name,
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("value", sa.LargeBinary, nullable=False),
            sa.Column("expires", sa.BigInteger, comment="microseconds since 1970, UTC"),
        )
        op.create_index(f"ix_{name}_expires", name, ["expires"])
