# SPDX-License-Identifier: Apache-2.0
"""``aa_kbc_params``: where guest components get keys from, as ``KBC::URI``.

``cc_kbc::ADDRESS`` names a KBS (:mod:`cocos.wire.kbs.address`) and ``offline_fs_kbc::null``
files of this machine. Unlike in the guest components the URL may be of an IPv6 address, which
holds ``::`` itself.
"""

from dataclasses import dataclass
from typing import Final

from cocos.errors import FormatError
from cocos.wire.kbs.address import KbsAddress

KBS: Final = "cc_kbc"
OFFLINE: Final = "offline_fs_kbc"

_KERNEL_PARAMETER: Final = "agent.aa_kbc_params="
_NOTHING: Final = frozenset({"", "null"})


@dataclass(frozen=True, slots=True)
class AaKbcParams:
    """Parsed parameters.

    Attributes:
        kbc: :data:`KBS` or :data:`OFFLINE`.
        kbs: The KBS; None if the text names none.
    """

    kbc: str
    kbs: KbsAddress | None = None

    @classmethod
    def parse(cls, text: str) -> "AaKbcParams":
        """Parse ``KBC::URI``.

        Raises:
            FormatError: another form, another KBC, or no URL where one must be.
        """
        kbc, separator, uri = text.partition("::")
        if not separator or kbc not in {KBS, OFFLINE}:
            raise FormatError(f"{kbc[:200]!r} is none of {KBS}::URL and {OFFLINE}::null")
        if uri in _NOTHING or kbc == OFFLINE:
            return cls(kbc)
        return cls(kbc, KbsAddress.parse(uri))


def one_source(
    named: KbsAddress | None, params: AaKbcParams | None, *, setting: str
) -> AaKbcParams | None:
    """Return where keys come from, by a setting of a program and by ``aa_kbc_params``.

    A policy sees one of them, and some program would go by the other: both may only say the
    same.

    Args:
        named: What the setting names.
        params: What the environment, or the kernel's command line, says.
        setting: Its name, for the message.

    Raises:
        FormatError: they say different things.
    """
    if named is None:
        return params
    found = AaKbcParams(KBS, named)
    if params is not None and params != AaKbcParams(KBS):
        told = None if params.kbs is None else params.kbs.trusted_like(named)
        if told != named:
            raise FormatError(f"{setting} and aa_kbc_params name different KBSs; leave one out")
    return found


def of_command_line(text: str) -> str | None:
    """Return what the kernel's command line says, or None if it says nothing.

    Raises:
        FormatError: it says two things.
    """
    found = {
        word.removeprefix(_KERNEL_PARAMETER)
        for word in text.split()
        if word.startswith(_KERNEL_PARAMETER)
    }
    if len(found) > 1:
        raise FormatError(f"the kernel's command line has {_KERNEL_PARAMETER} twice")
    return found.pop() if found else None
