# SPDX-License-Identifier: Apache-2.0
"""Policies in processes of their own."""
