# SPDX-License-Identifier: Apache-2.0
"""Who signs reports of AMD's processors, and what such a signature is worth."""
