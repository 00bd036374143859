# SPDX-License-Identifier: Apache-2.0
"""Cocos for Python: encrypted programs on encrypted data inside confidential VMs."""

__version__ = "0.1.0"
__all__ = ["__version__"]
