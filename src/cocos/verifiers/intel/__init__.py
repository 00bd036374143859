# SPDX-License-Identifier: Apache-2.0
"""What quotes of SGX and TDX have in common: their keys, and Intel's word on them."""
