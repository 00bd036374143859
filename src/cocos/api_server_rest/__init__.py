# SPDX-License-Identifier: Apache-2.0
"""The guest's agents as HTTP, for programs that speak nothing else."""
