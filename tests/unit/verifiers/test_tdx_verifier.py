# SPDX-License-Identifier: Apache-2.0
"""The TDX verifier, on quotes of a quoting enclave in software, and on a real one."""

import copy
import datetime as dt
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import _intel as intel
import pytest
from _intel import AUTH, DAY, NOW, Intel, Platform, b64, enclave, level, td
from _vectors import vector
from _verified import verified
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError, Finding
from cocos.evidence.eventlog import parse_log
from cocos.evidence.quote import MAX_QUOTE, Quote
from cocos.verifiers import Expected, verifier_table
from cocos.verifiers.collateral import Held
from cocos.verifiers.tdx import TdxVerifier
from cocos.wire.kbs.protocol import Tee
from cocos.wire.manifest.event import ComputationEvent

BOUND = ReportData(hashlib.sha384(b"session").digest())
MAKER = Intel()


def verifier(maker: Intel = MAKER, held: Held | None = None, now: dt.datetime = NOW) -> TdxVerifier:
    stored = maker.held() if held is None else held
    return TdxVerifier(stored, clock=lambda: now, insecure_root=maker.root)


def evidence(quote: bytes, log: bytes | None = None) -> JsonObject:
    return {"quote": b64(quote), "cc_eventlog": None if log is None else b64(log)}


async def claims(
    quote: bytes,
    judge: TdxVerifier | None = None,
    *,
    log: bytes | None = None,
    init_data: bytes | None = None,
) -> JsonObject:
    return await verified(judge or verifier(), evidence(quote, log), Expected(BOUND), init_data)


async def checks(*args: Any, **more: Any) -> dict[str, Finding]:
    with pytest.raises(EvidenceError) as caught:
        await claims(*args, **more)
    return {finding.check: finding for finding in caught.value.findings}


def changed(**changes: Any) -> Intel:
    """The same maker with other documents."""
    maker = copy.copy(MAKER)
    for name, value in changes.items():
        setattr(maker, name, value)
    return maker


def edited(document: JsonObject, **changes: Any) -> JsonObject:
    return copy.deepcopy(document) | changes


def registers(log: bytes) -> list[bytes]:
    """The RTMRs after the events of a log."""
    values = [bytes(48)] * 4
    for event in parse_log(log):
        value = values[event.index - 1] + event.digests["sha384"]
        values[event.index - 1] = hashlib.sha384(value).digest()
    return values


# --- what holds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "newer"), [(4, False), (5, False), (5, True)], ids=["4", "5 of 1.0", "5 of 1.5"]
)
async def test_quotes(version: int, newer: bool) -> None:
    found = await claims(MAKER.quote(td(BOUND, newer=newer), version=version, tail=bytes(70)))
    assert found["tcb_status"] == "UpToDate"
    assert found["collateral_expiration_status"] == "0"
    assert found["report_data"] == BOUND.hex().ljust(128, "0")
    assert found["init_data"] == "00" * 48
    assert found["quote"]["header"]["tee_type"] == "81000000"
    assert found["quote"]["header"]["version"] == f"0{version}00"
    assert found["quote"]["body"]["mr_td"] == "33" * 48
    assert ("mr_servicetd" in found["quote"]["body"]) == newer
    assert ("type" in found["quote"]) == (version == 5)
    assert found["platform_instance_id"] == bytes(reversed(range(16))).hex()
    flags = ("is_dynamic_platform", "is_cached_keys", "is_smt_enabled")
    assert [found[flag] for flag in flags] == [True, False, True]
    assert found["sgx_type"] == "Scalable"
    assert (found["pck_crl_num"], found["root_ca_crl_num"], found["tcb_eval_num"]) == (8, 7, 18)
    assert found["earliest_issue_date"] == "2026-11-22T12:00:00Z"
    assert found["earliest_expiration_date"] == "2026-12-22T12:00:00Z"


async def test_a_platform_of_the_processor_ca() -> None:
    maker = Intel(Platform(instance=None, flags=None, sgx_type=0), ca="processor")
    found = await claims(maker.quote(td(BOUND)), verifier(maker))
    assert found["tcb_status"] == "UpToDate"
    assert not {"platform_instance_id", "is_smt_enabled"} & found.keys()


@pytest.mark.parametrize(
    ("attributes", "name"),
    [(1, "debug"), (0, None), (1 << 63, "perfmon"), (1 << 30, "protection_keys")],
)
async def test_attributes_are_for_the_policy(attributes: int, name: str | None) -> None:
    """dcap-qvl refuses some of them; nothing else that it refuses is passed over."""
    quote = MAKER.quote(td(BOUND, td_attributes=struct.pack("<Q", attributes)))
    found = await claims(quote)
    wanted = ("debug", "septve_disable", "protection_keys", "key_locker", "perfmon")
    assert found["td_attributes"] == {each: each == name for each in wanted}
    assert found["tcb_status"] == "UpToDate"
    revoked = changed(revoked=[MAKER.pck.serial_number])
    assert set(await checks(quote, verifier(revoked))) == {"tdx.dcap"}


# --- the steps ---------------------------------------------------------------------------


async def test_report_data() -> None:
    for other in (b"", bytes(48), BOUND[:47], BOUND + b"x", BOUND[::-1]):
        assert set(await checks(MAKER.quote(td(other)))) == {"tdx.report_data"}
    long = Expected(ReportData(bytes(65)))
    with pytest.raises(EvidenceError) as caught:
        await verified(verifier(), evidence(MAKER.quote(td(bytes(64)))), long)
    assert caught.value.findings[0].check == "tdx.report_data"


async def test_init_data() -> None:
    digest = hashlib.sha384(b"init data").digest()
    quote = MAKER.quote(td(BOUND, mr_config_id=digest))
    assert (await claims(quote, init_data=digest))["init_data"] == digest.hex()
    assert (await claims(quote))["init_data"] == digest.hex()
    short = digest[:32]
    padded = MAKER.quote(td(BOUND, mr_config_id=short.ljust(48, b"\0")))
    assert await claims(padded, init_data=short)
    for wrong in (digest[:32], digest[::-1], bytes(48), b""):
        assert set(await checks(quote, init_data=wrong)) == {"tdx.init_data"}
    assert set(await checks(quote, init_data=bytes(64))) == {"init_data.algorithm"}


async def test_who_else_reaches_into_the_domain() -> None:
    migratable = MAKER.quote(td(BOUND, td_attributes=struct.pack("<Q", 1 << 28 | 1 << 29)))
    assert "tdx.service-td" in await checks(migratable)
    served = MAKER.quote(td(BOUND, newer=True, mr_servicetd=b"\1" * 48), version=5)
    assert "tdx.service-td" in await checks(served)
    for bit in (1, 4, 7, 8, 20, 32, 62):
        unknown = MAKER.quote(td(BOUND, td_attributes=struct.pack("<Q", 1 << 28 | 1 << bit)))
        assert "tdx.attributes" in await checks(unknown), bit


async def test_signatures() -> None:
    other = Intel()
    body = td(BOUND)
    forged = copy.copy(MAKER)
    forged.attestation_key = other.attestation_key
    numbers = MAKER.attestation_key.public_key().public_numbers()
    key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    own = enclave(hashlib.sha256(key + AUTH).digest())
    assert set(await checks(forged.quote(body, qe=own))) == {"tdx.attestation-key"}
    assert set(await checks(MAKER.quote(body, qe=enclave(bytes(32))))) == {"tdx.attestation-key"}
    tail = hashlib.sha256(key + AUTH).digest() + b"\1" * 32
    assert set(await checks(MAKER.quote(body, qe=enclave(tail)))) == {"tdx.attestation-key"}
    forged = copy.copy(MAKER)
    forged.pck_key = other.pck_key
    assert set(await checks(forged.quote(body))) == {"tdx.qe-signature"}
    quote = bytearray(MAKER.quote(body))
    quote[636] ^= 1
    assert set(await checks(bytes(quote))) == {"tdx.signature"}
    quote[636 + 64 : 636 + 128] = b"\xff" * 64  # no point of the curve
    assert set(await checks(bytes(quote))) == {"tdx.signature", "tdx.attestation-key"}


async def test_certificates() -> None:
    body, other = td(BOUND), Intel()
    pck, ca, root = MAKER.pck, MAKER.intermediate, MAKER.root
    old = MAKER.pck_of(MAKER.platform, begin=NOW - 2 * DAY, end=NOW - DAY)
    young = MAKER.pck_of(MAKER.platform, begin=NOW + DAY)
    no_ca = MAKER.issue(MAKER.ca_name, MAKER.ca_key, ca=False)
    named = MAKER.issue("Intel SGX PCK Other CA", MAKER.ca_key, ca=True)
    cases: dict[str, tuple[tuple[Any, ...], str]] = {
        "expired": ((old, ca, root), "tdx.pck-chain"),
        "not yet valid": ((young, ca, root), "tdx.pck-chain"),
        "another CA": ((pck, other.intermediate, root), "tdx.pck-chain"),
        "another PCK": ((other.pck, ca, root), "tdx.pck-chain"),
        "another root of the same name": ((pck, ca, other.root), "tdx.root"),
        "no CA": ((pck, no_ca, root), "tdx.pck-chain"),
        "the CA's name": ((pck, named, root), "tdx.evidence"),
        "order": ((pck, root, ca), "tdx.evidence"),
        "order of all": ((root, ca, pck), "tdx.evidence"),
        "no root": ((pck, ca), "tdx.evidence"),
        "no chain": ((), "tdx.evidence"),
        "four": ((pck, ca, root, root), "tdx.evidence"),
    }
    for name, (chain, step) in cases.items():
        found = await checks(MAKER.quote(body, chain=intel.pem(*chain)))
        assert step in found, name
    whole = await checks(other.quote(body))
    assert set(whole) == {"tdx.root"}
    for platform in (Platform(instance=None), Platform(flags=None)):
        wrong = MAKER.pck_of(platform)
        found = await checks(MAKER.quote(body, chain=intel.pem(wrong, ca, root)))
        assert set(found) == {"tdx.evidence"}


async def test_makers_root_is_intels() -> None:
    """Nobody's else, unless the constructor was told so, which then shows."""
    table = verifier_table(insecure_allow_sample=False, clock=lambda: NOW, collateral=MAKER.held())
    genuine = table.find(Tee.TDX)
    assert not genuine.insecure
    assert verifier().insecure
    with pytest.raises(EvidenceError) as caught:
        await genuine.authenticate(evidence(MAKER.quote(td(BOUND))), Expected(BOUND))
    assert [finding.check for finding in caught.value.findings] == ["tdx.root"]


# --- what Intel publishes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "status"),
    [
        ([level("UpToDate")], "UpToDate"),
        ([level("SWHardeningNeeded", advisories=("INTEL-SA-1",))], "SWHardeningNeeded"),
        ([level("ConfigurationNeeded")], "ConfigurationNeeded"),
        ([level("UpToDate", pcesvn=14), level("OutOfDate", pcesvn=1)], "OutOfDate"),
        ([level("UpToDate", (6,) * 16), level("OutOfDate")], "OutOfDate"),
        # Each component has to be reached: a greater first one makes up for nothing.
        ([level("UpToDate", (1, 9) + (0,) * 14), level("OutOfDate")], "OutOfDate"),
        ([level("UpToDate", tdx=(0, 0, 7) + (0,) * 13), level("OutOfDate")], "OutOfDate"),
    ],
)
async def test_levels(levels: list[Any], status: str) -> None:
    maker = changed(tcb_info=edited(MAKER.tcb_info, tcbLevels=levels))
    for attributes in (1 << 28, 1):  # judged by dcap-qvl, and by us alone
        quote = MAKER.quote(td(BOUND, td_attributes=struct.pack("<Q", attributes)))
        found = await claims(quote, verifier(maker))
        assert found["tcb_status"] == status
        assert found["advisory_ids"] == levels[0].get("advisoryIDs", [])
        assert found["tcb_date"] == "2026-02-14T00:00:00Z"


async def test_parts_that_are_out_of_date() -> None:
    module = MAKER.quote(td(BOUND, tcb_svn=bytes((3, 1, 6)) + bytes(13)))
    found = await claims(module)
    assert (found["tcb_status"], found["advisory_ids"]) == ("OutOfDate", ["INTEL-SA-00001"])
    numbers = MAKER.attestation_key.public_key().public_numbers()
    key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    made = hashlib.sha256(key + AUTH).digest()
    old = MAKER.quote(td(BOUND), qe=enclave(made, isv_svn=b"\2\0"))
    assert (await claims(old))["tcb_status"] == "OutOfDate"
    configuration = changed(
        tcb_info=edited(MAKER.tcb_info, tcbLevels=[level("ConfigurationNeeded")])
    )
    found = await claims(old, verifier(configuration))
    assert found["tcb_status"] == "OutOfDateConfigurationNeeded"


def _qe(**changes: bytes) -> Callable[[], tuple[bytes, TdxVerifier]]:
    def case() -> tuple[bytes, TdxVerifier]:
        numbers = MAKER.attestation_key.public_key().public_numbers()
        key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        made = enclave(hashlib.sha256(key + AUTH).digest(), **changes)
        return MAKER.quote(td(BOUND), qe=made), verifier()

    return case


def _info(**changes: Any) -> Callable[[], tuple[bytes, TdxVerifier]]:
    maker = changed(tcb_info=edited(MAKER.tcb_info, **changes))
    return lambda: (MAKER.quote(td(BOUND)), verifier(maker))


def _identity(**changes: Any) -> Callable[[], tuple[bytes, TdxVerifier]]:
    maker = changed(qe_identity=edited(MAKER.qe_identity, **changes))
    return lambda: (MAKER.quote(td(BOUND)), verifier(maker))


def _maker(**changes: Any) -> Callable[[], tuple[bytes, TdxVerifier]]:
    return lambda: (MAKER.quote(td(BOUND)), verifier(changed(**changes)))


def _domain(**changes: Any) -> Callable[[], tuple[bytes, TdxVerifier]]:
    return lambda: (MAKER.quote(td(BOUND, **changes)), verifier())


def _then(now: dt.datetime) -> Callable[[], tuple[bytes, TdxVerifier]]:
    return lambda: (MAKER.quote(td(BOUND)), verifier(now=now))


LATE = "2026-11-20T00:00:00Z"
REFUSED: dict[str, tuple[Callable[[], tuple[bytes, TdxVerifier]], str]] = {
    "PCK revoked": (_maker(revoked=[MAKER.pck.serial_number]), "tdx.dcap"),
    "CA revoked": (_maker(revoked_cas=[MAKER.intermediate.serial_number]), "tdx.dcap"),
    "TCB signer revoked": (_maker(revoked_cas=[MAKER.tcb_signer.serial_number]), "tdx.dcap"),
    "TCB key of somebody else": (_maker(tcb_key=Intel().tcb_key), "tdx.dcap"),
    "TCB signer of another name": (
        _maker(tcb_signer=MAKER.issue("Intel SGX PCK Platform CA", MAKER.tcb_key, ca=False)),
        "tdx.tcb-signer",
    ),
    "TCB signer of another root": (_maker(tcb_signer=Intel().tcb_signer), "tdx.dcap"),
    "QE of somebody else": (_qe(mr_signer=b"\1" * 32), "tdx.dcap"),
    "QE of another product": (_qe(isv_prod_id=b"\3\0"), "tdx.dcap"),
    "QE below every level": (_qe(isv_svn=b"\1\0"), "tdx.dcap"),
    "QE in debug mode": (_qe(attributes=struct.pack("<QQ", 0x17, 0xE7)), "tdx.dcap"),
    "QE with other options": (_qe(misc_select=b"\1\0\0\0"), "tdx.dcap"),
    "module of somebody else": (_domain(mrsigner_seam=b"\1" * 48), "tdx.dcap"),
    "module with attributes": (_domain(seam_attributes=b"\1" * 8), "tdx.dcap"),
    "module that nobody knows": (_domain(tcb_svn=bytes((5, 9, 6)) + bytes(13)), "tdx.dcap"),
    "module below every level": (_domain(tcb_svn=bytes((1, 1, 6)) + bytes(13)), "tdx.dcap"),
    "revoked level": (_info(tcbLevels=[level("Revoked")]), "tdx."),
    "level of no known status": (_info(tcbLevels=[level("Fine")]), "tdx."),
    "below every level": (_info(tcbLevels=[level("UpToDate", (9,) * 16)]), "tdx.dcap"),
    "no levels": (_info(tcbLevels=[]), "tdx.dcap"),
    "another platform's TCB": (_info(fmspc="00906F050000"), "tdx.dcap"),
    "another PCE's TCB": (_info(pceId="0001"), "tdx.pceid"),
    "TCB of an unknown type": (_info(tcbType=1), "tdx.tcb-info"),
    "TCB of SGX": (_info(id="SGX"), "tdx.dcap"),
    "TCB of an older version": (_info(version=2), "tdx.dcap"),
    "TCB past its time": (_info(nextUpdate=LATE), "tdx.dcap"),
    "QE of SGX": (_identity(id="QE"), "tdx.dcap"),
    "QE identity past its time": (_identity(nextUpdate=LATE), "tdx.dcap"),
    "all past their time": (_then(NOW + 40 * DAY), "tdx.dcap"),
    "from before it was issued": (_then(NOW - dt.timedelta(hours=25)), "tdx.pck-chain"),
}


async def test_levels_that_others_are_revoked_at() -> None:
    """What Intel revoked of old platforms refuses no other."""
    quote = MAKER.quote(td(BOUND))
    levels = [level("UpToDate"), level("Revoked", (0,) * 16)]
    maker = changed(tcb_info=edited(MAKER.tcb_info, tcbLevels=levels))
    assert (await claims(quote, verifier(maker)))["tcb_status"] == "UpToDate"
    old = {"tcb": {"isvsvn": 0}, "tcbDate": "2020-01-01T00:00:00Z", "tcbStatus": "Revoked"}
    levels = [*MAKER.qe_identity["tcbLevels"], old]
    maker = changed(qe_identity=edited(MAKER.qe_identity, tcbLevels=levels))
    assert (await claims(quote, verifier(maker)))["tcb_status"] == "UpToDate"
    levels = [old | {"tcb": {"isvsvn": 1}}]
    maker = changed(qe_identity=edited(MAKER.qe_identity, tcbLevels=levels))
    assert all(each.startswith("tdx.") for each in await checks(quote, verifier(maker)))


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str) -> None:
    case, step = REFUSED[name]
    quote, judge = case()
    found = await checks(quote, judge)
    assert all(each.startswith(step) for each in found), found


async def test_missing_documents_are_named_with_the_command_that_gets_them() -> None:
    with pytest.raises(EvidenceError) as caught:
        await claims(MAKER.quote(td(BOUND)), verifier(held=Held()))
    names = {finding.check.removeprefix("collateral.") for finding in caught.value.findings}
    assert names == {
        "intel/tcb/tdx/00806f050000", "intel/qe/tdx", "intel/chain/tcb",
        "intel/crl/platform", "intel/chain/platform", "intel/crl/root",
    }  # fmt: skip
    hint = caught.value.hint or ""
    assert hint.startswith("cocos-cli collateral fetch ")
    assert all(name in hint for name in names)
    one = await checks(MAKER.quote(td(BOUND)), verifier(held=MAKER.held(changes={"qe/tdx": None})))
    assert set(one) == {"collateral.intel/qe/tdx"}


@pytest.mark.parametrize("name", ["tcb/tdx/00806f050000", "qe/tdx", "chain/tcb", "crl/root"])
@pytest.mark.parametrize("data", [b"x", b"{}", b'{"tcbInfo":{},"signature":"zz"}', b"\xff" * 99])
async def test_documents_that_do_not_read(name: str, data: bytes) -> None:
    found = await checks(MAKER.quote(td(BOUND)), verifier(held=MAKER.held(changes={name: data})))
    assert set(found) <= {"tdx.collateral", "tdx.dcap"}


# --- the event log -----------------------------------------------------------------------


def entry(index: int, data: bytes, kind: int = 6, digest: bytes | None = None) -> bytes:
    measured = hashlib.sha384(data).digest() if digest is None else digest
    head = struct.pack("<IIIH", index, kind, 1, 0xC)
    return head + measured + struct.pack("<I", len(data)) + data


def logged(*entries: bytes) -> bytes:
    spec = b"Spec ID Event03\0" + struct.pack("<I4BIHHB", 0, 0, 2, 0, 2, 1, 0xC, 48, 0)
    return struct.pack("<II20xI", 0, 3, len(spec)) + spec + b"".join(entries)


def runtime(text: str) -> bytes:
    return struct.pack("<II", 0x4141454C, len(text)) + text.encode()


def measured(log: bytes) -> bytes:
    """A quote with the registers that a log leads to."""
    values: dict[str, Any] = {f"rtmr_{n}": value for n, value in enumerate(registers(log))}
    return MAKER.quote(td(BOUND, **values))


COMPUTATION = ComputationEvent(
    "11" * 32, "22" * 32, "33" * 32, (), "44" * 32, ("",), "55" * 32
).content()
EVENT = entry(4, runtime(f"cocos computation {COMPUTATION}"))


async def test_a_log_that_leads_to_the_registers() -> None:
    other = entry(4, runtime('other act {"a": 1}'))
    log = logged(entry(1, bytes(4), 4), entry(3, b"kernel", 13), EVENT, other, b"\xff" * 64)
    found = await claims(measured(log), log=log)
    assert found["computation"]["manifest_digest"] == "55" * 32
    assert found["computations"] == [found["computation"]]
    assert found["runtime_events"] == [
        {"index": 4, "domain": "other", "operation": "act", "content": '{"a": 1}'}
    ]
    assert [event["index"] for event in found["uefi_event_logs"]] == [1, 3, 4, 4]
    last = found["uefi_event_logs"][-1]
    assert last["details"]["unicode_name"] == "AAEL"
    assert last["details"]["data"]["content"] == {"a": 1}
    twice = logged(EVENT, EVENT)
    found = await claims(measured(twice), log=twice)
    assert len(found["computations"]) == 2
    assert "computation" not in found
    assert not {"computations", "uefi_event_logs"} & (await claims(measured(log))).keys()


async def test_logs_that_do_not() -> None:
    log = logged(entry(1, bytes(4), 4), EVENT)
    quote = measured(log)
    assert set(await checks(quote, log=logged(entry(1, bytes(4), 4)))) == {"tdx.rtmr_3"}
    assert set(await checks(quote, log=logged(EVENT))) == {"tdx.rtmr_0"}
    assert set(await checks(quote, log=logged(entry(1, bytes(4), 4), EVENT, EVENT))) == {
        "tdx.rtmr_3"
    }
    for index in (0, 5, 14):  # no register vouches for it
        hidden = logged(entry(1, bytes(4), 4), EVENT, entry(index, runtime("a b c")))
        found = await claims(quote, log=hidden)
        assert found["runtime_events"] == []
    none = logged(entry(1, bytes(4), 4), EVENT, entry(4, runtime("a b c"), kind=3))
    assert (await claims(quote, log=none))["runtime_events"] == []


async def test_digests_that_no_register_vouches_for_are_not_claimed() -> None:
    """RTMRs are of SHA-384: beside it anybody can write a digest that a policy looks for."""
    spec = b"Spec ID Event03\0" + struct.pack("<I4BI4HB", 0, 0, 2, 0, 2, 2, 0xC, 48, 0xB, 32, 0)
    first = struct.pack("<II20xI", 0, 3, len(spec)) + spec
    own = hashlib.sha384(b"mine").digest()
    head = struct.pack("<IIIH", 2, 0x80000003, 2, 0xC) + own
    log = first + head + struct.pack("<H", 0xB) + b"\x77" * 32 + struct.pack("<I", 4) + b"text"
    (event,) = (await claims(measured(log), log=log))["uefi_event_logs"]
    assert event["digests"] == [{"alg": "SHA-384", "digest": own.hex()}]


async def test_a_computation_in_disguise() -> None:
    """The type of an event is not measured, its text only where the digest is over it."""
    body = runtime(f"cocos computation {COMPUTATION}")
    log = logged(entry(4, body))
    hidden = logged(entry(4, body, kind=13))
    assert registers(log) == registers(hidden)
    assert set(await checks(measured(log), log=hidden)) == {"tdx.event-log.0"}
    other = logged(entry(4, runtime("a b c"), digest=hashlib.sha384(body).digest()))
    assert set(await checks(measured(log), log=other)) == {"tdx.event-log.0"}
    broken = logged(entry(4, runtime("cocos computation {}")))
    assert set(await checks(measured(broken), log=broken)) == {"tdx.event-log"}
    without = logged(struct.pack("<IIII", 4, 6, 0, len(body)) + body)
    assert set(await checks(measured(logged()), log=without)) == {"tdx.event-log"}


@pytest.mark.parametrize("log", [b"x", logged()[:-1], logged(EVENT)[:-1], bytes(2000)])
async def test_no_log(log: bytes) -> None:
    assert set(await checks(MAKER.quote(td(BOUND)), log=log)) == {"tdx.event-log"}


# --- untrusted bytes ---------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
async def test_each_bit_of_a_header_and_one_of_each_byte(version: int) -> None:
    quote = MAKER.quote(td(BOUND, newer=version == 5), version=version)
    signed = len(Quote.parse(quote).signed)
    judge = verifier()
    for bit in (*range(8 * 54), *(8 * byte + byte % 8 for byte in range(54, signed))):
        flipped = bytearray(quote)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EvidenceError):
            await judge.authenticate(evidence(bytes(flipped)), Expected(BOUND))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=100, deadline=None)
@given(st.data())
async def test_any_change_is_refused_or_harmless(data: st.DataObject) -> None:
    """Bytes of signatures and certificates, cut, longer, or others: never a traceback."""
    quote = bytearray(MAKER.quote(td(BOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(quote) - 1))
        quote[at] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.integers(len(quote) // 2, len(quote)))
    extra = data.draw(st.binary(max_size=8))
    try:
        found = await claims(bytes(quote[:end]) + extra)
    except EvidenceError as error:
        assert error.findings  # noqa: PT017 - both ends are fine
    else:
        assert found["quote"] == Quote.parse(MAKER.quote(td(BOUND))).claims()


# Certificates without a positive serial number are read, with a warning.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=100, deadline=None)
@given(st.data())
async def test_certificates_of_strangers(data: st.DataObject) -> None:
    """They are parsed before any signature holds."""
    chain = [*Quote.parse(MAKER.quote(td(BOUND))).chain]
    leaf = bytearray(chain[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(leaf) - 1))
        leaf[at] = data.draw(st.integers(0, 255))
    text = f"-----BEGIN CERTIFICATE-----\n{b64(bytes(leaf))}\n-----END CERTIFICATE-----\n"
    text += intel.pem(MAKER.intermediate, MAKER.root)
    if bytes(leaf) != chain[0]:
        assert await checks(MAKER.quote(td(BOUND), chain=text))


@pytest.mark.parametrize(
    "shown",
    [
        None, 1, [], {}, {"quote": None}, {"quote": 1}, {"quote": "?"}, {"quote": ""},
        {"quote": b64(b"x" * 4000)}, {"quote": "A" * (4 * MAX_QUOTE)},
    ],
)  # fmt: skip
async def test_no_evidence(shown: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        await verifier().authenticate(shown, Expected(BOUND))
    assert [finding.check for finding in caught.value.findings] == ["tdx.evidence"]


async def test_quotes_of_others() -> None:
    for quote in (
        MAKER.quote(enclave(BOUND), version=3),
        MAKER.quote(td(BOUND), certification=4),
        MAKER.quote(td(BOUND), tail=b"x"),
        MAKER.quote(td(BOUND), header=bytes(48)),
    ):
        assert set(await checks(quote)) == {"tdx.evidence"}


# --- real evidence -----------------------------------------------------------------------


async def test_a_real_quote() -> None:
    """Its signatures hold; nobody has Intel's word on its platform here.

    The log beside it is of another start: it does not lead to the registers.
    """
    raw = vector("tdx/quote-v4.bin")
    quote = Quote.parse(raw)
    bound = ReportData(quote.body.report_data)
    judge = TdxVerifier(Held(), clock=lambda: NOW)
    wanted = json.loads(vector("tdx/quote-v4-claims.json"))
    assert quote.claims() == wanted["quote"]
    log = vector("tdx/quote-v4-ccel.bin")
    authentic = await judge.authenticate(evidence(raw, log), Expected(bound))
    with pytest.raises(EvidenceError) as caught:
        await authentic.claims(None)
    names = {finding.check for finding in caught.value.findings}
    assert {name for name in names if not name.startswith("collateral.")} == {
        "tdx.rtmr_0",
        "tdx.rtmr_1",
    }
    assert "intel/tcb/tdx/50806f000000" in (caught.value.hint or "")
    with pytest.raises(EvidenceError) as caught:
        await judge.authenticate(evidence(raw), Expected(BOUND))
    assert [finding.check for finding in caught.value.findings] == ["tdx.report_data"]


async def test_a_real_quote_by_the_claims_expected() -> None:
    """With a quote of ours in its place, over the same domain: everything but the platform."""
    real = Quote.parse(vector("tdx/quote-v4.bin"))
    wanted = json.loads(vector("tdx/quote-v4-claims.json"))
    log = vector("tdx/quote-v4-ccel.bin")
    fields = {name: getattr(real.body, name) for name in intel.TD_FIELDS}
    fields |= {f"rtmr_{number}": value for number, value in enumerate(registers(log))}
    body = b"".join(fields.values())
    wanted.pop("platform_instance_id")
    for name in ("rtmr_0", "rtmr_1"):
        wanted["quote"]["body"][name] = fields[name].hex()
    quote = MAKER.quote(body, header=real.signed[:48])
    maker = changed(
        tcb_info=edited(MAKER.tcb_info, tcbLevels=[level("UpToDate", tdx=(3, 0, 5) + (0,) * 13)])
    )
    expected = Expected(ReportData(real.body.report_data))
    found = await verified(verifier(maker), evidence(quote, log), expected)
    assert {name: found[name] for name in wanted} == wanted
    assert (found["computations"], found["runtime_events"]) == ([], [])


# --- the library judges our reading of levels ---------------------------------------------


NUMBERS = st.lists(st.integers(0, 3), min_size=16, max_size=16).map(tuple)
STATUSES = st.sampled_from(
    ["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate",
     "ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    platform=NUMBERS,
    module=st.integers(0, 1),
    svn=st.integers(0, 6),
    rest=NUMBERS,
    levels=st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(11, 14), STATUSES), max_size=3),
)
async def test_levels_are_those_of_dcap_qvl(
    platform: tuple[int, ...],
    module: int,
    svn: int,
    rest: tuple[int, ...],
    levels: list[tuple[tuple[int, ...], tuple[int, ...], int, str]],
) -> None:
    """It says nothing of the level of a domain in debug mode, which is read by us alone."""
    some = [level(status, sgx, tdx, pcesvn) for sgx, tdx, pcesvn, status in levels]
    lowest = level("OutOfDate", (0,) * 16, (0,) * 16, 0)
    maker = changed(
        platform=Platform(components=platform),
        pck=MAKER.pck_of(Platform(components=platform)),
        tcb_info=edited(MAKER.tcb_info, tcbLevels=[*some, lowest]),
    )
    svns = bytes((svn, module, *rest[2:]))
    found: list[Any] = []
    for attributes in (1 << 28, 1 << 28 | 1):
        body = td(BOUND, tcb_svn=svns, td_attributes=struct.pack("<Q", attributes))
        try:
            known = await claims(maker.quote(body), verifier(maker))
        except EvidenceError as error:
            found.append({finding.check for finding in error.findings})
        else:
            found.append((known["tcb_status"], sorted(known["advisory_ids"])))
    assert found[0] == found[1]
