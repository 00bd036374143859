# SPDX-License-Identifier: Apache-2.0
"""What Intel's certification service publishes, fetched from a server of this machine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from _intel import NOW, Intel, b64, sgx_tcb_info, td
from _verified import verified

from cocos._types import ReportData
from cocos.clients.makers.intel import IntelService
from cocos.errors import CocosError, ProtocolError, UsageError
from cocos.errors import TooManyRequestsError as TooMany
from cocos.errors import UnreachableError as Away
from cocos.verifiers import Expected
from cocos.verifiers.collateral import Held
from cocos.verifiers.tdx import TdxVerifier

MAKER = Intel()
BOUND = ReportData(bytes(range(48)))
FMSPC = "00806f050000"
NAMES = (f"intel/tcb/tdx/{FMSPC}", "intel/qe/tdx", "intel/crl/platform", "intel/crl/root")
Reply = tuple[int, dict[str, str], bytes]


def pcs(target: str) -> Reply:
    """Answer as Intel does."""
    tcb = {name: quote(MAKER.tcb_chain()) for name in (
        "TCB-Info-Issuer-Chain", "SGX-Enclave-Identity-Issuer-Chain"
    )}  # fmt: skip
    crl = {"SGX-PCK-CRL-Issuer-Chain": quote(MAKER.crl_chain())}
    answers: dict[str, Reply] = {
        f"/tdx/certification/v4/tcb?fmspc={FMSPC.upper()}&update=early": (
            200, tcb, MAKER.signed("tcbInfo", MAKER.tcb_info).encode()
        ),
        f"/sgx/certification/v4/tcb?fmspc={FMSPC.upper()}&update=early": (
            200, tcb, MAKER.signed("tcbInfo", sgx_tcb_info()).encode()
        ),
        "/tdx/certification/v4/qe/identity?update=early": (
            200, tcb, MAKER.signed("enclaveIdentity", MAKER.qe_identity).encode()
        ),
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": (200, crl, MAKER.crl(root=False)),
        "/sgx/certification/v4/rootcacrl": (200, {}, MAKER.crl(root=True).hex().encode()),
    }  # fmt: skip
    return answers.get(target, (404, {}, b""))


@asynccontextmanager
async def serving(answer: Callable[[str], Reply]) -> AsyncIterator[IntelService]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers, body = answer(head.split(b" ", 2)[1].decode())
        lines = [f"HTTP/1.1 {status} Fine", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join((*lines, "", "")).encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service = IntelService(clock=lambda: NOW, url=f"http://127.0.0.1:{port}")
    async with server, service:
        yield service


async def test_what_is_fetched_is_what_a_verifier_needs() -> None:
    found: dict[str, Any] = {}
    async with serving(pcs) as service:
        for name in NAMES:
            found |= await service.fetch(name)
    assert set(found) == {*NAMES, "intel/chain/tcb", "intel/chain/platform"}
    assert all(item.fetched == NOW < item.not_after for item in found.values())
    judge = TdxVerifier(Held(found), clock=lambda: NOW, insecure_root=MAKER.root)
    shown = {"quote": b64(MAKER.quote(td(BOUND)))}
    claims = await verified(judge, shown, Expected(BOUND))
    assert claims["tcb_status"] == "UpToDate"


async def test_chains_by_their_own_names() -> None:
    async with serving(pcs) as service:
        assert "intel/chain/platform" in await service.fetch("intel/chain/platform")
        sgx = await service.fetch(f"intel/tcb/sgx/{FMSPC}")
    assert set(sgx) == {f"intel/tcb/sgx/{FMSPC}", "intel/chain/tcb"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ((404, {}, b""), ProtocolError),
        ((429, {"Retry-After": "7"}, b""), TooMany),
        ((429, {"Retry-After": "soon"}, b""), TooMany),
        ((500, {}, b""), Away),
        ((503, {}, b""), Away),
        ((200, {}, b"x"), ProtocolError),
        ((200, {}, b"{}"), ProtocolError),
        ((200, {}, MAKER.signed("tcbInfo", MAKER.tcb_info).encode()), ProtocolError),
        ((302, {"Location": "http://127.0.0.1/"}, b""), ProtocolError),
    ],
)
@pytest.mark.parametrize("name", NAMES)
async def test_what_is_no_answer(name: str, reply: Reply, kind: type[CocosError]) -> None:
    async with serving(lambda _: reply) as service:
        with pytest.raises(kind) as caught:
            await service.fetch(name)
    if isinstance(caught.value, TooMany):
        assert caught.value.retry_after == (7.0 if reply[1]["Retry-After"] == "7" else 1.0)


async def test_levels_of_another_platform() -> None:
    async with serving(lambda _: pcs(_tcb())) as other:
        with pytest.raises(ProtocolError, match="00806F050000"):
            await other.fetch("intel/tcb/tdx/00906f050000")


def _tcb() -> str:
    return f"/tdx/certification/v4/tcb?fmspc={FMSPC.upper()}&update=early"


@pytest.mark.parametrize(
    "name",
    ["", "intel", "intel/tcb/tdx", "intel/tcb/tdx/00806F050000", "intel/tcb/tdx/../../x",
     "intel/crl/other", "intel/qe/other", "amd/crl/milan", f"intel/tcb/tdx/{FMSPC}\n"],
)  # fmt: skip
async def test_names_of_nothing(name: str) -> None:
    async with serving(pcs) as service:
        with pytest.raises(UsageError):
            await service.fetch(name)
