# SPDX-License-Identifier: Apache-2.0
"""Container images: fetched, verified, described."""
