# SPDX-License-Identifier: Apache-2.0
"""The programs of a host, and the CVMS to try things out with."""
