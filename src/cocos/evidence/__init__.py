# SPDX-License-Identifier: Apache-2.0
"""Evidence formats: byte layouts and JSON shapes, parsed and nothing more."""
