# SPDX-License-Identifier: Apache-2.0
"""One module per change of the tables, never edited once released."""
