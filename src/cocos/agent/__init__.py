# SPDX-License-Identifier: Apache-2.0
"""Agent: runs one computation inside a confidential VM."""
