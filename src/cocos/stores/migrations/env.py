# SPDX-License-Identifier: Apache-2.0
"""Alembic's entry: migrates the connection that the store hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
