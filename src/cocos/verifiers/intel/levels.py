# SPDX-License-Identifier: Apache-2.0
"""Which level of Intel's documents a platform has reached, and how good it is.

After the PCS API, version 4: the first level whose numbers the platform reaches. The status
is the worse of platform, TDX module and quoting enclave.
"""

import datetime as dt
import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from cocos.errors import FormatError
from cocos.evidence.quote import Quote, TdReport
from cocos.verifiers.intel.chain import Pck


class Status(enum.StrEnum):
    """Of a level."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING = "SWHardeningNeeded"
    CONFIGURATION = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


class _Component(msgspec.Struct, frozen=True):
    svn: int


class _Tcb(msgspec.Struct, frozen=True, rename="lower"):
    sgx: list[_Component] = msgspec.field(name="sgxtcbcomponents")
    pcesvn: int
    tdx: list[_Component] = msgspec.field(name="tdxtcbcomponents", default_factory=list)


class _Isv(msgspec.Struct, frozen=True):
    isvsvn: int


class _Level(msgspec.Struct, frozen=True):
    status: Status = msgspec.field(name="tcbStatus")
    date: dt.datetime = msgspec.field(name="tcbDate")
    advisories: list[str] = msgspec.field(name="advisoryIDs", default_factory=list)


class _PlatformLevel(_Level, frozen=True, kw_only=True):
    tcb: _Tcb


class _IsvLevel(_Level, frozen=True, kw_only=True):
    tcb: _Isv


class _Module(msgspec.Struct, frozen=True):
    id: str
    levels: list[_IsvLevel] = msgspec.field(name="tcbLevels")


class TcbInfo(msgspec.Struct, frozen=True, rename="camel"):
    """TCB info, version 3, as far as it is read here."""

    issue_date: dt.datetime
    next_update: dt.datetime
    pce_id: str
    tcb_type: int
    evaluation: int = msgspec.field(name="tcbEvaluationDataNumber")
    levels: list[_PlatformLevel] = msgspec.field(name="tcbLevels")
    modules: list[_Module] = msgspec.field(name="tdxModuleIdentities", default_factory=list)


class QeIdentity(msgspec.Struct, frozen=True, rename="camel"):
    """Identity of a quoting enclave, version 2, as far as it is read here."""

    issue_date: dt.datetime
    next_update: dt.datetime
    evaluation: int = msgspec.field(name="tcbEvaluationDataNumber")
    levels: list[_IsvLevel] = msgspec.field(name="tcbLevels")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a platform is.

    Attributes:
        status: The worst of its parts.
        date: Of the platform's level: everything that was known by then is mended.
        advisories: Of all parts.
    """

    status: Status
    date: dt.datetime
    advisories: tuple[str, ...]


def verdict(quote: Quote, pck: Pck, info: TcbInfo, identity: QeIdentity) -> Verdict:
    """Return how good a platform is.

    Raises:
        FormatError: its numbers are below every level, or Intel has revoked theirs.
    """
    td = quote.body if isinstance(quote.body, TdReport) else None
    platform = _first("the platform", info.levels, lambda each: _reached(each.tcb, pck, td))
    isv = int.from_bytes(quote.qe_report.isv_svn, "little")
    parts: list[_Level] = [
        _first("the quoting enclave", identity.levels, lambda each: each.tcb.isvsvn <= isv)
    ]
    if td is not None and td.tcb_svn[_MODULE_VERSION] > 0:
        module = f"TDX_{td.tcb_svn[_MODULE_VERSION]:02X}"
        found = [each.levels for each in info.modules if each.id.upper() == module]
        svn = td.tcb_svn[_MODULE_SVN]
        parts.append(
            _first("the TDX module", found[0] if found else (), lambda each: each.tcb.isvsvn <= svn)
        )
    status = platform.status
    for part in parts:
        status = _worse(status, part.status)
    advisories = dict.fromkeys(each for part in (platform, *parts) for each in part.advisories)
    return Verdict(status, platform.date, tuple(advisories))


_MODULE_SVN: Final = 0
_MODULE_VERSION: Final = 1
_T = TypeVar("_T", bound=_Level)


def _first(what: str, levels: Iterable[_T], reached: Callable[[_T], bool]) -> _T:
    for level in levels:
        if reached(level):
            if level.status is Status.REVOKED:
                raise FormatError(f"{what} is at a level that Intel has revoked")
            return level
    raise FormatError(f"{what} is below every level that Intel knows")


def _reached(tcb: _Tcb, pck: Pck, td: TdReport | None) -> bool:
    if pck.pcesvn < tcb.pcesvn or not _at_least(pck.components, tcb.sgx):
        return False
    if td is None:
        return True
    # With a version in the second byte, the first two are the module's, which has levels
    # of its own.
    begin = 2 if td.tcb_svn[_MODULE_VERSION] > 0 else 0
    return _at_least(td.tcb_svn[begin:], tcb.tdx[begin:])


def _at_least(found: Sequence[int], wanted: Sequence[_Component]) -> bool:
    if len(found) != len(wanted):
        raise FormatError("a level does not have 16 components")
    return all(have >= want.svn for have, want in zip(found, wanted, strict=True))


def _worse(platform: Status, part: Status) -> Status:
    """Return a platform's status with that of a part; parts are up to date or they are not."""
    if part is Status.UP_TO_DATE:
        return platform
    if platform in {Status.CONFIGURATION, Status.CONFIGURATION_AND_SW_HARDENING}:
        return Status.OUT_OF_DATE_CONFIGURATION
    if platform in {Status.UP_TO_DATE, Status.SW_HARDENING}:
        return Status.OUT_OF_DATE
    return platform
