# SPDX-License-Identifier: Apache-2.0
"""Command lines: parse, build the configuration, call, one error handler."""
