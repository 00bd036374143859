# SPDX-License-Identifier: Apache-2.0
"""Debian's programs, fetched into the cache folder."""
