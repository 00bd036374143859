# SPDX-License-Identifier: Apache-2.0
"""Cryptography with fixed algorithms, on top of pyca/cryptography."""
