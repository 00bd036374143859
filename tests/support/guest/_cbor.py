# SPDX-License-Identifier: Apache-2.0
"""CBOR and COSE_Sign1, written; the product only reads them."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cocos.crypto import signature
from cocos.evidence.cbor import Tagged, head

ES256, EDDSA, ES384, ES512 = -7, -8, -35, -36


def dumps(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes | str):
        data = value.encode() if isinstance(value, str) else value
        return head(3 if isinstance(value, str) else 2, len(data)) + data
    if isinstance(value, Tagged):
        return head(6, value.tag) + dumps(value.value)
    if isinstance(value, dict):
        items = (dumps(key) + dumps(each) for key, each in value.items())
        return head(5, len(value)) + b"".join(items)
    return head(4, len(value)) + b"".join(map(dumps, value))


def sign1(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    payload: bytes,
    alg: int,
    headers: dict[Any, Any] | None = None,
    unprotected: dict[Any, Any] | None = None,
) -> Tagged:
    protected = dumps({1: alg, **(headers or {})})
    signed = signature.sign(dumps(["Signature1", protected, b"", payload]), key)
    return Tagged(18, (protected, unprotected or {}, payload, signed))
