# SPDX-License-Identifier: Apache-2.0
"""The image that confidential VMs boot: built from packages, measured, predicted."""
