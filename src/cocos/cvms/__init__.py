# SPDX-License-Identifier: Apache-2.0
"""CVM management service: hands out manifests, gathers results."""
