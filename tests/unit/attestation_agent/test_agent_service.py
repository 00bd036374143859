# SPDX-License-Identifier: Apache-2.0
import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from _registers import RegisterAttester

from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.event_log import EventLog
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.service import AttestationAgent, Measured
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import Attester, InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.errors import (
    CallerError,
    CocosError,
    FormatError,
    IntegrityError,
    StateError,
    UnsupportedError,
)
from cocos.evidence.event_details import runtime_event
from cocos.evidence.eventlog import parse_records
from cocos.wire.kbs.protocol import Tee


def agent(attester: Attester, log: EventLog | None = None) -> AttestationAgent:
    machine = Machine(attester, log)
    return AttestationAgent(machine, KbsTokens(lambda url: KbsClient(url, machine)))


async def opened(folder: Path, attester: Attester) -> EventLog:
    log = EventLog(folder / "aael" / "eventlog", attester, attester.default_register)
    await log.open()
    return log


async def test_evidence_is_compact_json() -> None:
    assert await agent(InsecureSampleAttester()).evidence(b"abc") == (
        b'{"svn":"1","report_data":"YWJj"}'
    )


async def test_devices_are_passed_on() -> None:
    own = agent(RegisterAttester())
    assert await own.additional_tees() == (Tee.SAMPLE_DEVICE,)
    assert json.loads(await own.additional_evidence(b"\x01")) == {"sampledevice": "01"}
    assert await agent(InsecureSampleAttester()).additional_evidence(b"\x01") == b""


@pytest.mark.parametrize("asked", [None, 14])
async def test_a_measurement_extends_the_register_and_the_log(
    asked: int | None, tmp_path: Path
) -> None:
    attester = RegisterAttester()
    own = agent(attester, await opened(tmp_path, attester))
    assert await own.extend_runtime_measurement("d", "o", "c e", asked) is Measured.DONE
    event = hashlib.sha256(tagged_event("d", "o", "c e")).digest()
    assert attester.registers == {14: hashlib.sha256(bytes(32) + event).digest()}
    evidence = json.loads(await own.evidence(b"\x01"))
    (logged,) = parse_records(bytes.fromhex(evidence["events"]))
    assert (logged.index, logged.digests) == (14, {"sha256": event})
    found = runtime_event(logged)
    assert found is not None
    assert (found.domain, found.operation, found.content) == ("d", "o", "c e")


@pytest.mark.parametrize("register", [0, 8, 11, 16, 17, 23, 2**40])
async def test_no_other_register_is_extended(register: int, tmp_path: Path) -> None:
    attester = RegisterAttester()
    own = agent(attester, await opened(tmp_path, attester))
    with pytest.raises(CallerError, match=f"not {register}"):
        await own.extend_runtime_measurement("d", "o", "c", register)
    assert not attester.registers


async def test_many_measurements_at_once_stay_in_one_order(tmp_path: Path) -> None:
    attester = RegisterAttester()
    log = await opened(tmp_path, attester)
    own = agent(attester, log)
    await asyncio.gather(
        *(own.extend_runtime_measurement("d", "o", f"{number}", None) for number in range(20))
    )
    await EventLog(tmp_path / "aael" / "eventlog", attester, 14).open()
    assert len(parse_records(await log.read())) == 20


async def test_a_caller_that_hangs_up_does_not_tear_log_and_register_apart(
    tmp_path: Path,
) -> None:
    attester = RegisterAttester()
    log = await opened(tmp_path, attester)
    own = agent(attester, log)
    task = asyncio.create_task(own.extend_runtime_measurement("d", "o", "c", None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await own.extend_runtime_measurement("d", "o", "second", None)
    await EventLog(tmp_path / "aael" / "eventlog", attester, 14).open()


async def test_evidence_from_before_a_measurement_is_old(tmp_path: Path) -> None:
    """Whoever has a token asks for another one after any event, even one that failed half-way."""
    attester = RegisterAttester()
    log = await opened(tmp_path, attester)
    machine = Machine(attester, log)
    seen = [machine.generation]
    await machine.evidence(b"\x01")
    assert machine.generation == seen[0]
    await machine.measure(log, tagged_event("d", "o", "c"), None)
    seen.append(machine.generation)
    await machine.bind_init_data(attester.host_data)
    seen.append(machine.generation)
    attester.before = True
    with pytest.raises(CocosError):
        await machine.measure(log, tagged_event("d", "o", "c"), None)
    seen.append(machine.generation)
    assert seen == sorted(set(seen))
    assert not machine._running, "a finished task is kept"


async def test_measurements_are_off_unless_the_operator_switched_them_on() -> None:
    attester = RegisterAttester()
    result = await agent(attester).extend_runtime_measurement("d", "o", "c", None)
    assert result is Measured.NOT_ENABLED
    assert not attester.registers


async def test_sample_cannot_measure(tmp_path: Path) -> None:
    attester = InsecureSampleAttester()
    own = agent(attester, await opened(tmp_path, attester))
    result = await own.extend_runtime_measurement("d", "o", "c", None)
    assert result is Measured.NOT_SUPPORTED
    assert not (tmp_path / "aael").exists()


async def test_switched_off_and_unsupported_come_before_the_look_at_the_event(
    tmp_path: Path,
) -> None:
    attester = RegisterAttester()
    event = ("d", "o", "c\nx", None)
    assert await agent(attester).extend_runtime_measurement(*event) is Measured.NOT_ENABLED
    sample = InsecureSampleAttester()
    own = agent(sample, await opened(tmp_path, sample))
    assert await own.extend_runtime_measurement(*event) is Measured.NOT_SUPPORTED
    own = agent(attester, await opened(tmp_path, attester))
    with pytest.raises(FormatError):
        await own.extend_runtime_measurement(*event)
    assert not attester.registers


@pytest.mark.parametrize("size", [32, 48, 64])
async def test_any_digest_may_be_bound(size: int) -> None:
    attester = RegisterAttester()
    attester.host_data = bytes(size)
    await agent(attester).bind_init_data(bytes(size))


async def test_init_data_is_compared() -> None:
    own = agent(RegisterAttester())
    await own.bind_init_data(hashlib.sha256(b"init data").digest())
    with pytest.raises(IntegrityError):
        await own.bind_init_data(hashlib.sha256(b"other init data").digest())


async def test_a_caller_is_told_that_init_data_is_not_bound() -> None:
    with pytest.raises(UnsupportedError):
        await agent(InsecureSampleAttester()).bind_init_data(bytes(32))


@pytest.mark.parametrize("size", [0, 1, 31, 33, 65])
async def test_init_data_needs_a_digest(size: int) -> None:
    with pytest.raises(FormatError, match=f"not {size}"):
        await agent(RegisterAttester()).bind_init_data(bytes(size))


@pytest.mark.parametrize("token_type", ["", "KBS", "COCO_AS", "kbs "])
async def test_other_types_of_tokens_are_refused(token_type: str) -> None:
    with pytest.raises(CallerError) as caught:
        await agent(InsecureSampleAttester()).token(token_type)
    assert caught.value.grpc_status == "INVALID_ARGUMENT"


async def test_runtime_data_is_for_tokens_of_an_attestation_service() -> None:
    own = agent(InsecureSampleAttester())
    with pytest.raises(StateError, match="no attestation service"):
        await own.token("coco_as", runtime_data=b"{}")
    with pytest.raises(CallerError, match="bound to its handshake"):
        await own.token("kbs", runtime_data=b"{}")


async def test_a_token_needs_a_configured_kbs() -> None:
    with pytest.raises(StateError) as caught:
        await agent(InsecureSampleAttester()).token("kbs")
    assert "AA_KBC_PARAMS" in (caught.value.hint or "")
