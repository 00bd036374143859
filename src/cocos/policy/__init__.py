# SPDX-License-Identifier: Apache-2.0
"""Policies in Rego over verified claims."""
