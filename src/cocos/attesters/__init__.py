# SPDX-License-Identifier: Apache-2.0
"""Attesters: report data to evidence, on the guest's side."""
