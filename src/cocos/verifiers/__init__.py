# SPDX-License-Identifier: Apache-2.0
"""Verifiers: evidence to verified claims."""
