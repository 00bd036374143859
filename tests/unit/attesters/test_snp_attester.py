# SPDX-License-Identifier: Apache-2.0
"""Evidence of SNP guests is the guest components' JSON, whatever the host puts beside it."""

import base64
import hashlib
import json
import struct
import uuid

import pytest
from _tsm import ROOT, FakeTsm
from _vectors import vector
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cocos.attesters import Devices, SnpAttester, SnpReport, detect
from cocos.attesters._snp_json import report_json
from cocos.errors import FormatError, IntegrityError, ProtocolError, UnsupportedError
from cocos.evidence import snp_json
from cocos.evidence.snp_binding import bind, mimics
from cocos.evidence.snp_table import KINDS
from cocos.host.devices.configfs_tsm import SNP
from cocos.host.devices.processors import find
from cocos.verifiers._tpm_log import COMPUTATION_PCR
from cocos.wire.kbs.protocol import Tee

DATA = bytes(range(48))
HOST_DATA = bytes(range(100, 132))


def report(data: bytes, *, version: int = 3, family: int = 0x19, model: int = 0x11) -> bytes:
    """Return an unsigned report whose bytes can be told apart."""
    body = bytearray(index % 251 for index in range(1184))
    mitigations = version >= 5
    for begin, end in ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0)):
        body[begin:end] = bytes(end - begin)
    begin = 0x208 if mitigations else 0x1F8
    body[begin:0x2A0] = bytes(0x2A0 - begin)
    body[0x330:] = bytes(1184 - 0x330)
    turin = family == 0x1A
    for at in (0x38, 0x180, 0x1E0, 0x1F0):
        reserved = slice(at + 4, at + 7) if turin else slice(at + 2, at + 6)
        body[reserved] = bytes(reserved.stop - reserved.start)
    struct.pack_into("<I", body, 0, version)
    body[0x50:0x90] = data.ljust(64, b"\0")
    body[0xC0:0xE0] = HOST_DATA
    body[0x188:0x18A] = bytes([family, model])
    return bytes(body)


def table(*entries: tuple[str, bytes]) -> bytes:
    head = 24 * (len(entries) + 1)
    kinds = {name: guid for guid, name in KINDS.items()}
    rows, blobs = b"", b""
    for name, data in entries:
        guid = kinds.get(name) or uuid.UUID(name)
        rows += guid.bytes + struct.pack("<II", head + len(blobs), len(data))
        blobs += data
    return rows + bytes(24) + blobs


class Processor:
    def __init__(self, beside: bytes = b"", answer: bytes | None = None) -> None:
        self._beside, self._answer = beside, answer

    async def report(self, data: bytes) -> SnpReport:
        return SnpReport(report(data) if self._answer is None else self._answer, self._beside)


async def test_evidence_of_an_snp_guest() -> None:
    chain = table(("VCEK", b"leaf"), ("ASK", b"middle"), ("ARK", b"root"))
    kernel = FakeTsm(SNP, lambda data: (report(data), chain))
    found = find(root=ROOT, files=kernel)
    attester = await detect(Devices(snp=found.snp, tdx=found.tdx), insecure_sample=True)
    assert await attester.tee() is Tee.SNP
    evidence = await attester.evidence(DATA)
    assert bytes(evidence["attestation_report"]["report_data"]) == DATA + bytes(16)
    kinds = {entry["cert_type"]: bytes(entry["data"]) for entry in evidence["cert_chain"]}
    assert kinds == {"VCEK": b"leaf", "ASK": b"middle", "ARK": b"root"}


def test_members_are_those_of_the_guest_components() -> None:
    raw = vector("snp/milan-v2-report.bin")
    found = report_json(raw)
    assert set(found) == {
        *("version", "guest_svn", "policy", "family_id", "image_id", "vmpl", "sig_algo"),
        *("current_tcb", "plat_info", "key_info", "report_data", "measurement", "host_data"),
        *("id_key_digest", "author_key_digest", "report_id", "report_id_ma", "reported_tcb"),
        *("cpuid_fam_id", "cpuid_mod_id", "cpuid_step", "chip_id", "committed_tcb", "current"),
        *("committed", "launch_tcb", "launch_mit_vector", "current_mit_vector", "signature"),
    }
    assert found["version"] == 2
    assert found["cpuid_fam_id"] is None
    assert bytes(found["measurement"]) == raw[0x90:0xC0]
    assert bytes(found["chip_id"]) == raw[0x1A0:0x1E0]
    assert bytes(found["signature"]["r"] + found["signature"]["s"]) == raw[0x2A0:0x330]
    assert found["reported_tcb"] == {
        "fmc": None,
        "bootloader": raw[0x180],
        "tee": raw[0x181],
        "snp": raw[0x186],
        "microcode": raw[0x187],
    }


def test_turin_s_layout_of_security_levels() -> None:
    raw = report(DATA, version=5, family=0x1A, model=2)
    found = report_json(raw)
    levels = raw[0x1F0:0x1F8]
    assert found["launch_tcb"] == {
        "fmc": levels[0],
        "bootloader": levels[1],
        "tee": levels[2],
        "snp": levels[3],
        "microcode": levels[7],
    }
    assert found["current_mit_vector"] == int.from_bytes(raw[0x200:0x208], "little")
    assert found["current"] == {"build": raw[0x1E8], "minor": raw[0x1E9], "major": raw[0x1EA]}


async def test_report_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match="65 bytes"):
        await SnpAttester(Processor()).evidence(bytes(65))


@pytest.mark.parametrize("answer", [b"", report(b"another's"), report(DATA)[:-1]])
async def test_a_report_on_other_data_is_not_sent(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="no report on our data"):
        await SnpAttester(Processor(answer=answer)).evidence(DATA)


@pytest.mark.parametrize(
    "beside",
    [
        b"garbage",
        table(("VCEK", b"leaf"))[:-1],
        table(("VCEK", b"leaf"))[:24],
        uuid.UUID(int=1).bytes + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
        table(*[("ARK", b"")] * 17),
    ],
)
async def test_a_host_s_table_is_not_believed_and_keeps_nobody_from_attesting(
    beside: bytes,
) -> None:
    with capture_logs() as logs:
        evidence = await SnpAttester(Processor(beside)).evidence(DATA)
    assert evidence["cert_chain"] is None
    assert [entry["event"] for entry in logs] == ["attester.certificates"]


@pytest.mark.parametrize("beside", [b"", bytes(24), bytes(0x4000)])
async def test_a_host_without_certificates(beside: bytes) -> None:
    assert (await SnpAttester(Processor(beside)).evidence(DATA))["cert_chain"] is None


async def test_what_nobody_has_named_and_what_comes_twice_is_not_sent() -> None:
    beside = table((str(uuid.uuid4()), b"?"), ("VCEK", b"first"), ("VCEK", b"second"))
    evidence = await SnpAttester(Processor(beside)).evidence(DATA)
    assert evidence["cert_chain"] == [{"cert_type": "VCEK", "data": list(b"first")}]


async def test_init_data_are_compared_with_host_data() -> None:
    attester = SnpAttester(Processor())
    await attester.bind_init_data(HOST_DATA)
    await attester.bind_init_data(HOST_DATA + bytes(16))  # SHA-384's first 32 bytes
    for other in (HOST_DATA[:-1] + b"\0", bytes(32), b"\0" + HOST_DATA):
        with pytest.raises(IntegrityError, match=HOST_DATA.hex()):
            await attester.bind_init_data(other)


async def test_other_machines_are_not_snp() -> None:
    assert await SnpAttester.detect(Devices()) is None


async def test_there_is_no_runtime_register() -> None:
    """Events go into evidence, under the number that verifiers know computations by."""
    attester = SnpAttester(Processor())
    assert (attester.events_in_report, attester.default_register) == (True, COMPUTATION_PCR)
    with pytest.raises(UnsupportedError, match="snp has no runtime"):
        await attester.extend_register(17, bytes(48))


async def test_events_go_along_and_every_byte_of_them_is_bound() -> None:
    attester = SnpAttester(Processor())
    plain = await attester.evidence(DATA)
    evidence = await attester.evidence(DATA, events=b"events")
    assert "aael" not in plain
    assert base64.b64decode(evidence["aael"]) == b"events"
    found = bytes(evidence["attestation_report"]["report_data"])
    log = hashlib.sha384(b"events").digest()
    assert found == hashlib.sha384(log + DATA).digest() + b"cocos runtime v1"


@pytest.mark.parametrize("events", [b"", b"events"])
async def test_nobody_chooses_report_data_that_reads_as_if_it_carried_events(
    events: bytes,
) -> None:
    """Whoever may ask the agent for evidence would else claim any computation."""
    forged = bind(DATA, b"somebody else's computation")
    asked: list[bytes] = []

    class Watched(Processor):
        async def report(self, data: bytes) -> SnpReport:
            asked.append(data)
            return await super().report(data)

    with pytest.raises(FormatError, match="must not end"):
        await SnpAttester(Watched()).evidence(forged, events=events)
    assert asked == []


@given(st.binary(max_size=64), st.binary(min_size=1, max_size=64))
def test_what_a_caller_chooses_is_never_what_carries_events(chosen: bytes, log: bytes) -> None:
    assert mimics(bind(chosen, log))
    assert mimics(chosen) == chosen.ljust(64, b"\0").endswith(b"cocos runtime v1")


@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(), st.binary())
def test_no_other_session_or_log_has_the_same_binding(
    one: bytes, other: bytes, log: bytes, longer: bytes
) -> None:
    same = (one, log) == (other, longer)
    assert (bind(one, log) == bind(other, longer)) == same


@pytest.mark.parametrize(("version", "family"), [(3, 0x19), (4, 0x19), (5, 0x19), (5, 0x1A)])
async def test_who_verifies_makes_the_same_bytes_again(version: int, family: int) -> None:
    raw = report(DATA, version=version, family=family, model=1)
    evidence = await SnpAttester(Processor(answer=raw)).evidence(DATA)
    assert isinstance(evidence["attestation_report"], dict)
    assert snp_json.parse(evidence).report() == raw


def test_fields_of_a_real_report_are_those_that_real_guests_send() -> None:
    sent = json.loads(vector("snp/genoa-v3-evidence.json"))
    raw = snp_json.parse(sent).report()
    fields = report_json(raw)
    assert {name: fields[name] for name in sent["attestation_report"]} == sent["attestation_report"]


@pytest.mark.parametrize("place", [0x4C, 0x18B, 0x1EB, 0x210, 0x3A, 0x330])
async def test_bytes_that_have_no_field_travel_too(place: int) -> None:
    """Of a processor to come: without them its signature would not hold."""
    raw = bytearray(report(DATA))
    raw[place] = 1
    evidence = await SnpAttester(Processor(answer=bytes(raw))).evidence(DATA)
    assert evidence["attestation_report"] == base64.b64encode(raw).decode()
    assert snp_json.parse(evidence).report() == raw
