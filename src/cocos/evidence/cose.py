# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1 (RFC 9052 §4.2): a payload, and who signed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cocos.crypto import signature
from cocos.errors import AuthenticationError, FormatError
from cocos.evidence import cbor

SIGN1: Final = 18  # its tag

_ALGORITHMS: Final = {-7: "ES256", -35: "ES384", -36: "ES512", -8: "EdDSA"}
_ALG: Final = 1
_CRIT: Final = 2
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Sign1:
    """A signed payload.

    Attributes:
        headers: Those that are signed, too.
        payload: What is signed.
    """

    headers: Mapping[Any, Any]
    payload: bytes
    _protected: bytes
    _signature: bytes

    @classmethod
    def of(cls, item: Any, what: str) -> "Sign1":
        """Return it from its CBOR, with the tag or without.

        Raises:
            FormatError: it is none, or has headers that must be understood and are not.
        """
        parts = item.value if isinstance(item, cbor.Tagged) and item.tag == SIGN1 else item
        if not (isinstance(parts, tuple) and len(parts) == _PARTS):
            raise FormatError(f"{what} is no COSE_Sign1")
        protected, unprotected, payload, signed = parts
        if not (
            isinstance(protected, bytes)
            and isinstance(unprotected, dict)
            and isinstance(payload, bytes)
            and isinstance(signed, bytes)
        ):
            raise FormatError(f"{what} is no COSE_Sign1")
        headers = cbor.loads(protected, f"the headers of {what}") if protected else {}
        if not isinstance(headers, dict) or _CRIT in headers or _CRIT in unprotected:
            raise FormatError(f"{what} has headers that nobody here understands")
        return cls(headers, payload, protected, signed)

    def verify(self, key: signature.SigningPublicKey) -> None:
        """Check the signature.

        Raises:
            AuthenticationError: ``key`` did not make it, or not with this algorithm.
        """
        algorithm = self.headers.get(_ALG)
        name = _ALGORITHMS.get(algorithm) if isinstance(algorithm, int) else None
        if name is None or name not in signature.algorithms(key):
            raise AuthenticationError(f"signatures of algorithm {algorithm!r} are not by this key")
        try:
            signature.verify(self._signature, self._signed(), key, name)
        except AuthenticationError as error:
            raise AuthenticationError("it is not signed by the expected key") from error

    def _signed(self) -> bytes:
        parts = ((3, b"Signature1"), (2, self._protected), (2, b""), (2, self.payload))
        items = (cbor.head(major, len(data)) + data for major, data in parts)
        return cbor.head(4, _PARTS) + b"".join(items)
