# SPDX-License-Identifier: Apache-2.0
"""Keys that open a key broker's storage."""
