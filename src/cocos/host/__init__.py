# SPDX-License-Identifier: Apache-2.0
"""The only place that starts processes or opens devices."""
