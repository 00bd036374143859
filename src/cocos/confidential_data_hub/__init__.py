# SPDX-License-Identifier: Apache-2.0
"""Confidential data hub: resources and sealed secrets for the programs of a guest."""
