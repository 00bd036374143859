# SPDX-License-Identifier: Apache-2.0
"""The key broker's protocol."""
