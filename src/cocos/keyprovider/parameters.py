# SPDX-License-Identifier: Apache-2.0
"""The text after ``provider:attestation-agent:`` on Skopeo's command line.

For encryption, pieces joined by ``::`` in any order::

    kbs:///default/key/algo-key                          the key's id
    cc_kbc::kbs:///default/key/algo-key                  the same, as the guide writes it
    keyid=kbs:///…::keypath=/keys/kek.bin::algorithm=A256GCM
    sample=true                                          the well-known key; insecure
    Enabled                                              nothing: what Skopeo sends for no text

For decryption ``cc_kbc::URL``, with what the KBS is known by in its fragment, names the KBS;
``cc_kbc::null`` and ``offline_fs_kbc::null`` leave it to the settings.
A piece that we do not know is an error: it may be a setting with a typing mistake.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocos.crypto.kek import WrapType
from cocos.errors import FormatError
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourceUri
from cocos.wire.ocicrypt import parse_key_id

_KBC = re.compile(r"[a-z0-9_]+_kbc", re.ASCII)
_NOTHING = {"", "Enabled", "null"}
_HINT = "provider:attestation-agent:cc_kbc::kbs:///repository/type/tag"


@dataclass(frozen=True, slots=True)
class WrapParameters:
    """Which key to wrap with.

    Attributes:
        key: Resource of the key, or None for a new one.
        key_path: File of the key, or None to look it up.
        wrap_type: How to wrap.
        sample: Use the well-known key, which protects nothing.
    """

    key: ResourceUri | None = None
    key_path: Path | None = None
    wrap_type: WrapType = WrapType.A256GCM
    sample: bool = False


def parse_wrap(text: str) -> WrapParameters:
    """Parse the parameter of an encryption.

    Raises:
        FormatError: an unknown or a repeated piece, or a value that does not parse.
    """
    members: dict[str, str] = {}
    for piece in text.split("::"):
        if piece in _NOTHING or _KBC.fullmatch(piece):
            continue
        name, equals, value = piece.partition("=")
        if not equals or "://" in name:
            name, value = "keyid", piece
        if name not in {"keyid", "keypath", "algorithm", "sample"}:
            raise FormatError(f"unknown encryption parameter {piece[:200]!r}", hint=_HINT)
        if name in members:
            raise FormatError(f"the encryption parameter {name} is given twice", hint=_HINT)
        members[name] = value
    return WrapParameters(
        key=parse_key_id(members["keyid"]) if "keyid" in members else None,
        key_path=Path(_not_empty("keypath", members["keypath"])) if "keypath" in members else None,
        wrap_type=_wrap_type(members.get("algorithm", WrapType.A256GCM)),
        sample=_boolean(members.get("sample", "false")),
    )


def parse_unwrap(texts: Sequence[str]) -> str | None:
    """Parse the parameters of a decryption.

    Args:
        texts: May be empty: the key is used whatever provider the command line names.

    Returns:
        Address of the KBS to ask, or None for the configured one.

    Raises:
        FormatError: another form, or two different servers.
    """
    urls = {url for text in texts if (url := _kbs_url(text)) is not None}
    if len(urls) > 1:
        raise FormatError("the decryption parameters name two different KBS")
    return urls.pop() if urls else None


def _kbs_url(text: str) -> str | None:
    kbc, separator, url = text.partition("::")
    if not separator:
        kbc, url = "", text
    if url in _NOTHING or (not separator and _KBC.fullmatch(url)):
        return None
    shown = "this" if "@" in text else repr(text[:200])
    problem = FormatError(
        f"{shown} is not a decryption parameter", hint="cc_kbc::null or cc_kbc::URL"
    )
    if kbc and not _KBC.fullmatch(kbc):
        raise problem
    try:
        return str(KbsAddress.parse(url))
    except FormatError as error:
        raise problem from error


def _wrap_type(text: str) -> WrapType:
    try:
        return WrapType(text)
    except ValueError as error:
        raise FormatError(f"unknown algorithm {text[:50]!r}", hint="A256GCM or A256CTR") from error


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise FormatError(f"sample is {text[:50]!r}, neither true nor false")
    return text == "true"


def _not_empty(name: str, text: str) -> str:
    if not text or "\0" in text:
        raise FormatError(f"the encryption parameter {name} has no value")
    return text
