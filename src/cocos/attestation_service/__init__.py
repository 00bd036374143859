# SPDX-License-Identifier: Apache-2.0
"""Attestation service: verifiers, policies and tokens."""
