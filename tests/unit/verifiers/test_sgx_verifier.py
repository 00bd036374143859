# SPDX-License-Identifier: Apache-2.0
"""The SGX verifier, on quotes of a quoting enclave in software."""

import copy
import hashlib
import struct
from typing import Any

import pytest
from _intel import DAY, NOW, Intel, b64, enclave, level, sgx_tcb_info, td
from _verified import verified

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError
from cocos.evidence.quote import Quote
from cocos.verifiers import Expected, verifier_table
from cocos.verifiers.collateral import Held
from cocos.verifiers.sgx import SgxVerifier
from cocos.wire.kbs.protocol import Tee

BOUND = ReportData(hashlib.sha384(b"session").digest())


def _maker() -> Intel:
    maker = Intel()
    maker.tcb_info = sgx_tcb_info()
    maker.qe_identity |= {"id": "QE"}
    return maker


MAKER = _maker()


def verifier(held: Held | None = None) -> SgxVerifier:
    stored = MAKER.held("sgx") if held is None else held
    return SgxVerifier(stored, clock=lambda: NOW, insecure_root=MAKER.root)


async def claims(
    body: bytes, held: Held | None = None, init_data: bytes | None = None, version: int = 3
) -> JsonObject:
    quote = MAKER.quote(body, version=version)
    return await verified(verifier(held), {"quote": b64(quote)}, Expected(BOUND), init_data)


async def checks(*args: Any, **more: Any) -> set[str]:
    with pytest.raises(EvidenceError) as caught:
        await claims(*args, **more)
    return {finding.check for finding in caught.value.findings}


async def test_a_quote() -> None:
    digest = hashlib.sha256(b"init data").digest().ljust(64, b"\0")
    found = await claims(enclave(BOUND, config_id=digest), init_data=digest[:32])
    assert found["header"]["version"] == "0300"
    assert found["header"]["tee_type"] == found["header"]["att_key_data_0"] == "00000000"
    assert found["header"]["vendor_id"] == "939a7233f79c4ca9940a0db3957f0607"
    assert found["body"]["mr_enclave"] == "11" * 32
    assert found["body"]["attributes.flags"] == "1500000000000000"
    assert found["body"]["attributes.xfrm"] == "e700000000000000"
    assert found["tcb_status"] == "UpToDate"
    assert found["debug"] is False
    assert found["init_data"] == digest.hex()


async def test_debug_is_for_the_policy() -> None:
    debug = enclave(BOUND, attributes=struct.pack("<QQ", 0x17, 0xE7))
    found = await claims(debug)
    assert (found["debug"], found["tcb_status"]) == (True, "UpToDate")


async def test_refused() -> None:
    body = enclave(BOUND)
    assert await checks(enclave(b"x")) == {"sgx.report_data"}
    assert await checks(body, init_data=bytes(31) + b"\1") == {"sgx.init_data"}
    assert await checks(body, init_data=bytes(65)) == {"init_data.algorithm"}
    assert await checks(body, version=4) == {"sgx.evidence"}
    assert await checks(body, version=5) == {"sgx.evidence"}
    assert await checks(td(BOUND), version=4) == {"sgx.evidence"}
    assert all(name.startswith("collateral.intel/") for name in await checks(body, Held()))
    for info in (
        {"tcbLevels": [level("Revoked", tdx=None)]},
        {"tcbLevels": [level("UpToDate", (9,) * 16, None)]},
        {"fmspc": "00906F050000"},
        {"pceId": "0001"},
        {"nextUpdate": f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}"},
    ):
        maker = copy.copy(MAKER)
        maker.tcb_info = MAKER.tcb_info | info
        assert all(name.startswith("sgx.") for name in await checks(body, maker.held("sgx")))
    maker = copy.copy(MAKER)
    maker.tcb_info |= {"tcbLevels": [level("OutOfDate", tdx=None)]}
    assert (await claims(body, maker.held("sgx")))["tcb_status"] == "OutOfDate"


@pytest.mark.parametrize("shown", [None, {}, {"quote": 1}, {"quote": "?"}, {"quote": "AAAA"}])
async def test_no_evidence(shown: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        await verifier().authenticate(shown, Expected(BOUND))
    assert [finding.check for finding in caught.value.findings] == ["sgx.evidence"]


async def test_each_bit_of_a_header_and_one_of_each_byte() -> None:
    quote = MAKER.quote(enclave(BOUND), version=3)
    signed = len(Quote.parse(quote).signed)
    for bit in (*range(8 * 48), *(8 * byte + byte % 8 for byte in range(48, signed))):
        flipped = bytearray(quote)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EvidenceError):
            await verifier(Held()).authenticate({"quote": b64(bytes(flipped))}, Expected(BOUND))


async def test_makers_root_is_intels() -> None:
    genuine = verifier_table(insecure_allow_sample=False, clock=lambda: NOW).find(Tee.SGX)
    assert (genuine.insecure, verifier().insecure) == (False, True)
    quote = MAKER.quote(enclave(BOUND), version=3)
    with pytest.raises(EvidenceError) as caught:
        await genuine.authenticate({"quote": b64(quote)}, Expected(BOUND))
    assert [finding.check for finding in caught.value.findings] == ["sgx.root"]
