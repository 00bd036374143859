# SPDX-License-Identifier: Apache-2.0
"""The manifest of a computation."""
