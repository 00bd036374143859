# SPDX-License-Identifier: Apache-2.0
"""Manager: starts and stops confidential VMs on a host."""
