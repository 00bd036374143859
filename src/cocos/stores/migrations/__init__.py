# SPDX-License-Identifier: Apache-2.0
"""Alembic migrations: the only thing that makes or changes tables."""
