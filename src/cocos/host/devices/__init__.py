# SPDX-License-Identifier: Apache-2.0
"""Devices of confidential processors: the only place that opens them."""
