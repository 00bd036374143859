# SPDX-License-Identifier: Apache-2.0
"""Key provider for ocicrypt: wraps and unwraps layer keys."""
