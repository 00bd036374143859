# SPDX-License-Identifier: Apache-2.0
"""Attestation agent: evidence and tokens for the guest."""
