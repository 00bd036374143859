# SPDX-License-Identifier: Apache-2.0
"""Init data: what the host passes into a confidential VM, as one TOML text.

Members ``version``, ``algorithm`` and the table ``data`` of text to text. The digest is
over the exact bytes of the text, so that any change shows.
"""

import hashlib
import tomllib
from dataclasses import dataclass, field

from cocos.errors import FormatError

ALGORITHMS = ("sha256", "sha384", "sha512", "sm3")


@dataclass(frozen=True, slots=True)
class InitDocument:
    """Parsed init data.

    Attributes:
        version: Free text.
        algorithm: Name of the hash, one of :data:`ALGORITHMS`.
        data: File name → content.
        digest: That hash of the whole text.
    """

    version: str
    algorithm: str
    data: dict[str, str] = field(repr=False)
    digest: bytes

    @classmethod
    def parse(cls, text: bytes) -> "InitDocument":
        """Parse init data.

        Args:
            text: UTF-8, exactly as it was passed in.

        Raises:
            FormatError: not TOML, a member is missing, or an unknown hash.
        """
        try:
            document = tomllib.loads(text.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError("the init data is not TOML") from error
        version = document.get("version")
        algorithm = document.get("algorithm")
        data = document.get("data")
        if not isinstance(version, str):
            raise FormatError("the init data has no version")
        if algorithm not in ALGORITHMS:
            raise FormatError(
                "the init data names no hash that we know", hint=f"one of {', '.join(ALGORITHMS)}"
            )
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise FormatError("the init data has no table [data] of text")
        try:
            digest = hashlib.new(algorithm, text).digest()
        except ValueError as error:  # SM3 is missing from some builds of OpenSSL
            raise FormatError(f"this machine cannot compute {algorithm}") from error
        return cls(version, algorithm, data, digest)
