# SPDX-License-Identifier: Apache-2.0
"""Virtual machines, and what they are given."""
