# SPDX-License-Identifier: Apache-2.0
"""Proves to guests who ask for it that a resource is from this key broker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cocos._types import JsonObject
from cocos.crypto import detached
from cocos.tokens.signer import Signer
from cocos.wire.kbs import proof
from cocos.wire.kbs.protocol import Response


@dataclass(frozen=True, slots=True)
class Released:
    """A resource on its way.

    Attributes:
        sealed: Encrypted to ``tee_key``.
        tee_key: Public JWK of the guest.
    """

    sealed: Response
    tee_key: JsonObject


class Proofs:
    """Signs answers with the key that signs tokens.

    Args:
        signer: Returns the present one; None where others sign the tokens: nothing is proved.
    """

    def __init__(self, signer: Callable[[], Awaitable[Signer]] | None) -> None:
        self._signer = signer

    async def of(self, released: Released, resource: str, nonce: str, body: bytes) -> str | None:
        """Return the proof of an answer; None if there is no key for it.

        Args:
            released: What is in the answer.
            resource: ``plugin/path`` that was asked for.
            nonce: The guest's.
            body: The answer.

        Raises:
            FormatError: the nonce is malformed.
        """
        signed = proof.content(proof.check_nonce(nonce), resource, released.tee_key, body)
        if self._signer is None:
            return None
        return detached.sign(signed, (await self._signer()).key)
