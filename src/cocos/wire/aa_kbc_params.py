# SPDX-License-Identifier: Apache-2.0
"""``aa_kbc_params``: where guest components get keys from, as ``KBC::URI``.

``cc_kbc::URL`` names a KBS and ``offline_fs_kbc::null`` files of this machine. Unlike in
the guest components the URL may be of an IPv6 address, which holds ``::`` itself.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cocos.errors import FormatError

KBS: Final = "cc_kbc"
OFFLINE: Final = "offline_fs_kbc"

_KERNEL_PARAMETER: Final = "agent.aa_kbc_params="
_NOTHING: Final = frozenset({"", "null"})


@dataclass(frozen=True, slots=True)
class AaKbcParams:
    """Parsed parameters.

    Attributes:
        kbc: :data:`KBS` or :data:`OFFLINE`.
        url: Base URL of the KBS; None if the text names none.
    """

    kbc: str
    url: str | None = None

    @classmethod
    def parse(cls, text: str) -> "AaKbcParams":
        """Parse ``KBC::URI``.

        Raises:
            FormatError: another form, another KBC, or no URL where one must be.
        """
        kbc, separator, uri = text.partition("::")
        if not separator or kbc not in {KBS, OFFLINE}:
            raise FormatError(f"{text[:200]!r} is none of {KBS}::URL and {OFFLINE}::null")
        if uri in _NOTHING or kbc == OFFLINE:
            return cls(kbc)
        return cls(kbc, kbs_url(uri))


def kbs_url(text: str) -> str:
    """Return the base URL of a KBS without slashes at its end.

    Raises:
        FormatError: no HTTP URL, or one that holds a password.
    """
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None
    except ValueError:
        valid = False
    if not valid:
        raise FormatError(f"{text[:200]!r} is not the URL of a KBS", hint="http://HOST:PORT")
    return text.rstrip("/")


def of_command_line(text: str) -> str | None:
    """Return what the kernel's command line says, or None if it says nothing."""
    for word in text.split():
        if word.startswith(_KERNEL_PARAMETER):
            return word.removeprefix(_KERNEL_PARAMETER)
    return None
