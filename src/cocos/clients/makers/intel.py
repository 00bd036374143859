# SPDX-License-Identifier: Apache-2.0
"""Intel's Provisioning Certification Service, version 4, or a cache that answers as it does.

What it serves is kept as it is. That it is Intel's is for who judges a quote by it to find
out; here it only has to be what was asked for, and to say until when it holds.
"""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Final, Self, TypeVar
from urllib.parse import unquote

import msgspec
from cryptography import x509

from cocos._clock import Clock
from cocos.clients._http import HttpServer, Transport
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import ProtocolError, TooManyRequestsError, UnreachableError, UsageError
from cocos.verifiers.collateral import Item

INTEL_URL: Final = "https://api.trustedservices.intel.com"
ROOT_CRL_SERVICE: Final = "https://certificates.trustedservices.intel.com"
"""Where Intel's root certificate says that its CRL is."""

_NAME: Final = re.compile(
    r"intel/(?:(?P<tcb>tcb)/(?P<kind>sgx|tdx)/(?P<fmspc>[0-9a-f]{12})"
    r"|(?P<qe>qe)/(?P<of>sgx|tdx)|(?P<crl>crl|chain)/(?P<ca>platform|processor)"
    r"|(?P<root>crl/root)|(?P<signer>chain/tcb))",
    re.ASCII,
)
_WHAT: Final = "Intel's certification service"
_USER_AGENT: Final = "cocos-cli/0.1.0"
_OK: Final = 200
_TOO_MANY: Final = 429
_THEIR_FAULT: Final = 500
_ROOT_CRL: Final = "sgx/certification/v4/rootcacrl"  # of caches; Intel's is elsewhere
_T = TypeVar("_T")


def check_name(name: str) -> re.Match[str]:
    """Return the parts of a name.

    Raises:
        UsageError: Intel publishes nothing of that name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"Intel publishes nothing called {name!r}",
            hint="e.g. intel/tcb/tdx/00806f050000, intel/qe/tdx, intel/crl/platform, "
            "intel/crl/root",
        )
    return match


class _Validity(msgspec.Struct, frozen=True, rename="camel"):
    next_update: dt.datetime


class _Fmspc(_Validity, frozen=True, rename="camel"):
    fmspc: str


class _TcbInfo(msgspec.Struct, frozen=True, rename="camel"):
    tcb_info: _Fmspc


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    enclave_identity: _Validity


class IntelService:
    """The service.

    Args:
        clock: Says when something was fetched.
        url: Another one that answers in the same way.
        transport: Instead of the network.

    Raises:
        ConfigError: the URL cannot be used.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        url: str = INTEL_URL,
        transport: Transport | None = None,
    ) -> None:
        self._clock = clock
        self._server = HttpServer(url, what=_WHAT, user_agent=_USER_AGENT, transport=transport)
        self._roots = (
            HttpServer(ROOT_CRL_SERVICE, what=_WHAT, user_agent=_USER_AGENT)
            if url == INTEL_URL
            else self._server
        )
        self._root_route = "IntelSGXRootCA.der" if url == INTEL_URL else _ROOT_CRL

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._server.__aexit__(*reason)
        await self._roots.__aexit__(*reason)

    async def fetch(self, name: str) -> dict[str, Item]:
        """Return what has a name, and what came along with it.

        Raises:
            UsageError: Intel publishes nothing of that name.
            TooManyRequestsError: it wants to be left alone for a while.
            UnreachableError: it cannot be reached, or does not serve at the moment.
            ProtocolError: it answers, but not with what was asked for.
        """
        match = check_name(name)
        if match["tcb"]:
            return await self._tcb(name, match["kind"], match["fmspc"])
        if match["qe"] or match["signer"]:
            return await self._identity(match["of"] or "sgx")
        if match["root"]:
            body, _ = await self._get(self._root_route, "", self._roots)
            return {name: self._crl(_unhexed(body))}
        return await self._revoked(match["ca"])

    async def _tcb(self, name: str, kind: str, fmspc: str) -> dict[str, Item]:
        route = f"{kind}/certification/v4/tcb?fmspc={fmspc.upper()}&update=early"
        body, chain = await self._get(route, "TCB-Info-Issuer-Chain")
        found = _decoded(body, _TcbInfo).tcb_info
        if found.fmspc.lower() != fmspc:
            raise ProtocolError(f"{_WHAT} sent the TCB info of {found.fmspc}, not of {fmspc}")
        return {name: self._item(body, [found.next_update]), "intel/chain/tcb": self._chain(chain)}

    async def _identity(self, kind: str) -> dict[str, Item]:
        route = f"{kind}/certification/v4/qe/identity?update=early"
        body, chain = await self._get(route, "SGX-Enclave-Identity-Issuer-Chain")
        found = _decoded(body, _Identity).enclave_identity
        return {
            f"intel/qe/{kind}": self._item(body, [found.next_update]),
            "intel/chain/tcb": self._chain(chain),
        }

    async def _revoked(self, ca: str) -> dict[str, Item]:
        route = f"sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
        body, chain = await self._get(route, "SGX-PCK-CRL-Issuer-Chain")
        return {f"intel/crl/{ca}": self._crl(body), f"intel/chain/{ca}": self._chain(chain)}

    async def _get(
        self, route: str, header: str, server: HttpServer | None = None
    ) -> tuple[bytes, bytes]:
        answer = await (server or self._server).request("GET", route)
        if answer.status == _TOO_MANY:
            asked = answer.headers.get("Retry-After")
            pause = float(asked) if asked.isdecimal() else 1.0
            raise TooManyRequestsError(f"{_WHAT} is asked too often", retry_after=pause)
        if answer.status >= _THEIR_FAULT:
            raise UnreachableError(f"{_WHAT} does not serve at the moment ({answer.status})")
        if answer.status != _OK:
            raise ProtocolError(f"{_WHAT} has no {route} ({answer.status})")
        return answer.body, unquote(answer.headers.get(header)).encode() if header else b""

    def _chain(self, pem: bytes) -> Item:
        try:
            found = x509.load_pem_x509_certificates(pem)
        except UNREADABLE as error:
            raise ProtocolError(f"{_WHAT} sent no certificates of who signs") from error
        return self._item(pem, [each.not_valid_after_utc for each in found])

    def _crl(self, der: bytes) -> Item:
        try:
            end = x509.load_der_x509_crl(der).next_update_utc
        except UNREADABLE as error:
            raise ProtocolError(
                f"{_WHAT} sent a list of revoked certificates that is none"
            ) from error
        if end is None:
            raise ProtocolError(f"{_WHAT} sent a list of revoked certificates without an end")
        return self._item(der, [end])

    def _item(self, data: bytes, ends: Iterable[dt.datetime]) -> Item:
        return Item(data, self._clock(), min(ends))


def _unhexed(data: bytes) -> bytes:
    """Caches send this list in hex."""
    try:
        return bytes.fromhex(data.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        return data


def _decoded(data: bytes, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"{_WHAT} sent something else than was asked for") from error
