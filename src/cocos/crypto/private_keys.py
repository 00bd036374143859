# SPDX-License-Identifier: Apache-2.0
"""Private keys in PEM as other programs write them.

The original's CLI puts PKCS#1 under the label of PKCS#8, which strict readers refuse; what
a key is shows in its DER, whatever the label says.
"""

import base64
import re
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)
"""What :func:`load` raises."""

_BLOCK: Final = re.compile(
    rb"-----BEGIN (?P<kind>(?:RSA |EC )?PRIVATE KEY)-----\s+"
    rb"(?P<body>[A-Za-z0-9+/=\s]+)-----END (?P=kind)-----"
)


def load(pem: bytes) -> PrivateKeyTypes:
    """Load an unencrypted private key: PKCS#8, PKCS#1 or SEC 1, under any of their labels.

    Raises:
        ValueError, TypeError, UnsupportedAlgorithm: no such key, or an encrypted one.
    """
    try:
        return serialization.load_pem_private_key(pem, None)
    except ValueError:
        block = _BLOCK.search(pem)
        if block is None:
            raise
        return serialization.load_der_private_key(base64.b64decode(block["body"]), None)
