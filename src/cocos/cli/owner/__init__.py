# SPDX-License-Identifier: Apache-2.0
"""cocos-cli, for owners of programs, data and machines."""
