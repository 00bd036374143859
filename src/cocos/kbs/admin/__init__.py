# SPDX-License-Identifier: Apache-2.0
"""The administrators' side of the key broker."""
