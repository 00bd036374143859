# SPDX-License-Identifier: Apache-2.0
"""Services of makers of processors, which collateral comes from."""
