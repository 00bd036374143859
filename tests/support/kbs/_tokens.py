# SPDX-License-Identifier: Apache-2.0
"""Issuers of tokens without a store."""

from typing import Any

from cocos.crypto import jwk
from cocos.crypto.signing import SigningKey
from cocos.tokens.check import TokenVerifier


class Keys:
    """Issuers who have some keys for ever."""

    def __init__(self, *keys: SigningKey) -> None:
        self._keys = tuple(key.verification_key() for key in keys)

    async def verify(self, token: str) -> dict[str, Any]:
        return jwk.verify_with_any(self._keys, token)


def trusting(*keys: SigningKey) -> TokenVerifier:
    return TokenVerifier([Keys(*keys)])
