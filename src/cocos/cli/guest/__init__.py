# SPDX-License-Identifier: Apache-2.0
"""The programs of a guest."""
