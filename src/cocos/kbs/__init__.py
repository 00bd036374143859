# SPDX-License-Identifier: Apache-2.0
"""Key broker service."""
