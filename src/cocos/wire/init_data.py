# SPDX-License-Identifier: Apache-2.0
"""Init data: what the host passes into a confidential VM, as one TOML or JSON text.

Members ``version``, ``algorithm`` and the table ``data`` of text to text. The digest is
over the exact bytes of the text, so that any change shows. Algorithms are named as Trustee
reads them (``sha256``) or as its documents write them (``sha-256``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cocos.errors import FormatError
from cocos.wire import toml
from cocos.wire.json import decode_strict

VERSION = "0.1.0"
SECTOR_BYTES = 512
ALGORITHMS = ("sha256", "sha384", "sha512", "sm3")
_SPELLINGS: Final = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


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
    def parse(cls, text: bytes, form: Literal["toml", "json"] = "toml") -> "InitDocument":
        """Parse init data.

        Args:
            text: UTF-8, exactly as it was passed in.
            form: How it is written.

        Raises:
            FormatError: not TOML or JSON, a member is missing, or an unknown hash.
        """
        document = _from_json(text) if form == "json" else _from_toml(text)
        version = document.get("version")
        algorithm = document.get("algorithm")
        data = document.get("data")
        if not isinstance(version, str):
            raise FormatError("the init data has no version")
        named, algorithm = algorithm, _SPELLINGS.get(str(algorithm), algorithm)
        if algorithm not in ALGORITHMS:
            what = (
                f"the hash {named[:50]!r}, which is none" if isinstance(named, str) else "no hash"
            )
            known = ", ".join((*ALGORITHMS, *_SPELLINGS))
            raise FormatError(f"the init data names {what} that we know", hint=f"one of {known}")
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise FormatError("the init data has no table data of text")
        try:
            digest = hashlib.new(algorithm, text).digest()
        except ValueError as error:  # SM3 is missing from some builds of OpenSSL
            raise FormatError(f"this machine cannot compute {algorithm}") from error
        return cls(version, algorithm, data, digest)


def _from_toml(text: bytes) -> dict[str, Any]:
    try:
        return toml.loads(text.decode("utf-8"))
    except (FormatError, UnicodeDecodeError) as error:
        raise _packed(text) or FormatError("the init data is not TOML") from error


def _packed(text: bytes) -> FormatError | None:
    """Return the error for init data as annotations of pods carry it, None for others."""
    form = "gzip in base64" if text.lstrip().startswith(b"H4sI") else "gzip"
    if form == "gzip" and not text.startswith(b"\x1f\x8b"):
        return None
    unpack = "base64 -d | gunzip" if "base64" in form else "gunzip"
    return FormatError(
        f"the init data is {form}, not the text itself", hint=f"{unpack} gives the text"
    )


def _from_json(text: bytes) -> dict[str, Any]:
    if (packed := _packed(text)) is not None:
        raise packed
    document: dict[str, Any] = decode_strict(text, dict[str, Any], "the init data")
    return document


def build(data: Mapping[str, str]) -> bytes:
    """Return init data with SHA-256 as its hash; the same data give the same bytes.

    Args:
        data: File name → content, in the order in which they shall appear.
    """
    lines = [f'version = "{VERSION}"', 'algorithm = "sha256"', "", "[data]"]
    lines += [f"{_quoted(name)} = {_text(content)}" for name, content in data.items()]
    return ("\n".join(lines) + "\n").encode()


def to_disk(text: bytes) -> bytes:
    """Return the content of a disk that carries init data: padded with NULs to whole sectors."""
    return text + bytes(-len(text) % SECTOR_BYTES)


def from_disk(content: bytes) -> bytes:
    """Return the init data that a disk carries, byte for byte as it was built.

    Raises:
        FormatError: something other than NULs comes after the text.
    """
    text, _, padding = content.partition(b"\0")
    if padding.strip(b"\0"):
        raise FormatError("the init data disk holds more than init data")
    return text


def _text(content: str) -> str:
    """Return a TOML string: as it is where that can be read back exactly, else with escapes."""
    plain = all(char.isprintable() or char in "\n\t" for char in content)
    if "\n" in content and plain and "'''" not in content and not content.endswith("'"):
        return f"'''\n{content}'''"
    return _quoted(content)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, but TOML wants one for DEL, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
