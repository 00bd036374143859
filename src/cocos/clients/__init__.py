# SPDX-License-Identifier: Apache-2.0
"""Typed clients of our services."""
