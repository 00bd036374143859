# SPDX-License-Identifier: Apache-2.0
"""Files of settings, ours and Trustee's, as flat settings."""
