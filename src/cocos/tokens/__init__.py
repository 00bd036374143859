# SPDX-License-Identifier: Apache-2.0
"""EAR tokens: issue and check."""
