# SPDX-License-Identifier: Apache-2.0
"""Evidence of TDX guests, and RTMR 3, which the attestation agent measures into."""

import base64
import hashlib
from pathlib import Path

import pytest
from _tsm import ROOT, FakeTsm
from _vectors import vector

from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.event_log import EventLog
from cocos.attesters import Devices, TdxAttester, detect
from cocos.errors import FormatError, IntegrityError, ProtocolError, UnsupportedError
from cocos.evidence.eventlog import parse_log, parse_records
from cocos.host.devices.configfs_tsm import TDX
from cocos.host.devices.processors import find
from cocos.wire.kbs.protocol import Tee

DATA = bytes(range(48))
CONFIG_ID = bytes(range(100, 148))
EVENT = tagged_event("domain", "operation", "content")


class Module:
    """The TDX module, its registers in memory."""

    def __init__(self, log: bytes = b"", *, extends: bool = True) -> None:
        self.extends = extends
        self._log = log
        self.rtmrs = [bytes(48)] * 4

    async def quote(self, data: bytes) -> bytes:
        return b"quote on " + data

    async def td_report(self) -> bytes:
        info = bytes(16 + 48) + CONFIG_ID + bytes(96) + b"".join(self.rtmrs)
        return (bytes(512) + info).ljust(1024, b"\0")

    async def extend(self, register: int, digest: bytes) -> None:
        self.rtmrs[register] = hashlib.sha384(self.rtmrs[register] + digest).digest()

    async def boot_log(self) -> bytes:
        return self._log


async def test_evidence_of_a_tdx_guest() -> None:
    kernel = FakeTsm(TDX, lambda data: (b"quote on " + data, None))
    found = find(root=ROOT, files=kernel)
    attester = await detect(Devices(snp=found.snp, tdx=found.tdx), insecure_sample=True)
    assert await attester.tee() is Tee.TDX
    evidence = await attester.evidence(DATA)
    assert evidence["cc_eventlog"] is None
    assert base64.b64decode(evidence["quote"]) == b"quote on " + DATA + bytes(16)
    with pytest.raises(FormatError, match="65 bytes"):
        await attester.evidence(bytes(65))


@pytest.mark.parametrize("filling", [b"", b"\0" * 4096, b"\xff" * 4096])
async def test_the_firmware_s_log_is_cut_before_ours_begins(tmp_path: Path, filling: bytes) -> None:
    firmware = vector("eventlog/ccel-aael.bin").rstrip(b"\xff")
    module = Module(firmware + filling)
    attester = TdxAttester(module)
    log = EventLog(tmp_path / "log", attester, attester.default_register)
    await log.open()
    await log.append(EVENT)
    evidence = await attester.evidence(DATA, events=await log.read())
    events = parse_log(base64.b64decode(evidence["cc_eventlog"]))
    assert len(events) == len(parse_log(firmware)) + 1
    assert (events[-1].index, events[-1].data) == (4, EVENT)


async def test_a_log_of_ours_alone_has_the_guest_components_header() -> None:
    evidence = await TdxAttester(Module()).evidence(DATA, events=b"events")
    log = base64.b64decode(evidence["cc_eventlog"])
    assert log[69:] == b"events" + b"\xff" * 8
    assert log[:69].hex() == (
        "00000000" + "03000000" + "00" * 20 + "25000000" + "00" * 24 + "02000000"
        "0c003000" + "12002000" + "00"
    )


async def test_a_firmware_s_log_that_does_not_parse_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="CCEL"):
        await TdxAttester(Module(b"garbage")).evidence(DATA)


async def test_events_go_to_rtmr_3_as_the_guest_components_measure(tmp_path: Path) -> None:
    module = Module()
    attester = TdxAttester(module)
    log = EventLog(tmp_path / "log", attester, attester.default_register)
    await log.open()
    await log.append(EVENT)
    await log.append(EVENT, 17)
    records = parse_records(await log.read())
    digest = (
        "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440"
        "fb00f3aa0609db7e49cd8d793f670d02"
    )
    assert [record.digests["sha384"].hex() for record in records] == [digest] * 2
    assert {record.index for record in records} == {4}
    once = hashlib.sha384(bytes(48) + bytes.fromhex(digest)).digest()
    twice = hashlib.sha384(once + bytes.fromhex(digest)).digest()
    assert module.rtmrs == [bytes(48), bytes(48), bytes(48), twice]
    await EventLog(tmp_path / "log", attester, attester.default_register).open()


async def test_a_register_that_somebody_else_extended_is_noticed(tmp_path: Path) -> None:
    module = Module()
    await module.extend(3, bytes(48))
    log = EventLog(tmp_path / "log", TdxAttester(module), 17)
    with pytest.raises(IntegrityError, match="does not explain register 17"):
        await log.open()


@pytest.mark.parametrize("index", [0, *range(16, 24)])
async def test_rtmr_3_goes_by_the_names_that_guest_components_give_it(index: int) -> None:
    module = Module()
    attester = TdxAttester(module)
    await attester.extend_register(index, bytes(48))
    assert await attester.read_register(index) == module.rtmrs[3] != bytes(48)


async def test_other_machines_are_not_tdx() -> None:
    assert await TdxAttester.detect(Devices()) is None


@pytest.mark.parametrize("index", [-1, *range(1, 16), 24])
async def test_registers_of_the_boot_are_not_ours(index: int) -> None:
    module = Module()
    with pytest.raises(UnsupportedError, match="RTMR 3"):
        await TdxAttester(module).extend_register(index, bytes(48))
    with pytest.raises(UnsupportedError, match="RTMR 3"):
        await TdxAttester(module).read_register(index)
    assert module.rtmrs == [bytes(48)] * 4


async def test_a_kernel_without_registers_measures_nothing_and_says_so(tmp_path: Path) -> None:
    module = Module(extends=False)
    attester = TdxAttester(module)
    assert not EventLog(tmp_path / "log", attester, 17).supported
    with pytest.raises(UnsupportedError, match="tdx has no runtime"):
        await attester.extend_register(17, bytes(48))


async def test_init_data_are_compared_with_mrconfigid() -> None:
    attester = TdxAttester(Module())
    await attester.bind_init_data(CONFIG_ID)
    await attester.bind_init_data(CONFIG_ID + bytes(16))
    for other in (CONFIG_ID[:32], bytes(48), CONFIG_ID[:-1] + b"\0"):
        with pytest.raises(IntegrityError, match=CONFIG_ID.hex()):
            await attester.bind_init_data(other)


async def test_a_device_that_answers_something_else() -> None:
    class Odd(Module):
        async def td_report(self) -> bytes:
            return bytes(100)

    with pytest.raises(ProtocolError, match="1024 bytes"):
        await TdxAttester(Odd()).read_register(17)
