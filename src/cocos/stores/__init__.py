# SPDX-License-Identifier: Apache-2.0
"""Storage interfaces and their implementations."""
