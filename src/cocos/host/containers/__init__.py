# SPDX-License-Identifier: Apache-2.0
"""Programs of others: containers, sandboxes, their limits."""
