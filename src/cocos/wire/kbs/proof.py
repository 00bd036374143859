# SPDX-License-Identifier: Apache-2.0
"""How a KBS proves that a resource is from it: ours, beside the KBS protocol.

A resource is encrypted to the guest's public key, which everybody on the way sees: another
one could answer with a key of its own. Who knows the KBS by its token-signing key sends a
nonce, and gets with the resource a signature (:mod:`cocos.crypto.detached`) over the nonce,
the resource's name, the guest's key and the answer. A KBS that does not know the header
leaves the signature out, and such a guest takes nothing from it.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from cocos.errors import FormatError
from cocos.wire.json import canonical

NONCE_HEADER: Final = "Cocos-Nonce"
PROOF_HEADER: Final = "Cocos-Proof"
NONCE_BYTES: Final = 32

_PURPOSE: Final = "cocos-kbs-resource-1"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22,86}", re.ASCII)


def check_nonce(text: str) -> str:
    """Return a guest's nonce.

    Raises:
        FormatError: not 22 to 86 characters of base64url.
    """
    if not _NONCE.fullmatch(text):
        raise FormatError(f"{NONCE_HEADER} is not 22 to 86 characters of base64url")
    return text


def content(nonce: str, resource: str, tee_key: Mapping[str, Any], body: bytes) -> bytes:
    """Return what is signed: canonical JSON of an array, so that it is never a token.

    Args:
        nonce: The guest's, of this request.
        resource: ``plugin/path``, without a query.
        tee_key: Public JWK that the answer is encrypted to.
        body: The answer's body.
    """
    key = hashlib.sha256(canonical(dict(tee_key))).hexdigest()
    return canonical([_PURPOSE, nonce, resource, key, hashlib.sha256(body).hexdigest()])
