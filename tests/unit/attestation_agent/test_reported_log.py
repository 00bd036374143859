# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC240 - small files of the test's own
"""Where no register holds events, evidence carries the log, and the log is old or new."""

from pathlib import Path

import pytest

from cocos.attestation_agent import event_log, reported_log
from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.reported_log import ReportedLog
from cocos.attesters import SnpAttester, SnpReport
from cocos.errors import CallerError, IntegrityError, StateError
from cocos.evidence.eventlog import parse_records
from cocos.evidence.snp_binding import bind

FIRST, SECOND = tagged_event("d", "o", "first"), tagged_event("d", "o", "second")


class Processor:
    async def report(self, data: bytes) -> SnpReport:
        return SnpReport(bytes(0x50) + data + bytes(1184 - 0x90), b"")


async def opened(path: Path) -> ReportedLog:
    log = ReportedLog(path, SnpAttester(Processor()), 14)
    assert log.supported
    await log.open()
    return log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "eventlog"


async def test_events_are_kept_in_order_and_over_a_restart(path: Path) -> None:
    log = await opened(path)
    await log.append(FIRST)
    await (await opened(path)).append(SECOND, 14)
    found = parse_records(await log.read())
    assert [(event.index, event.data) for event in found] == [(14, FIRST), (14, SECOND)]
    assert all(event.digest_matches("sha384") for event in found)
    with pytest.raises(CallerError, match="register 14"):
        await log.append(FIRST, 17)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_evidence_of_the_machine_carries_what_was_logged(path: Path) -> None:
    log = await opened(path)
    machine = Machine(SnpAttester(Processor()), log)

    async def reported() -> bytes:
        evidence = await machine.evidence(b"session")
        return bytes(evidence["attestation_report"]["report_data"])

    assert await reported() == b"session".ljust(64, b"\0")
    generation = machine.generation
    await machine.measure(log, FIRST, None)
    assert machine.generation > generation, "tokens from before the event count no more"
    assert await reported() == bind(b"session", await log.read())


async def test_a_log_that_cannot_be_written_stays_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await opened(path)
    await log.append(FIRST)
    before = await log.read()

    def full(*_: object) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(reported_log, "write_atomic", full)
        with pytest.raises(StateError):
            await log.append(SECOND)
    assert await log.read() == before
    monkeypatch.setattr(event_log, "MAX_LOG_BYTES", len(before) + 10)
    with pytest.raises(StateError, match="is full"):
        await log.append(SECOND)
    assert await log.read() == before


async def test_a_damaged_log_stops_the_agent(path: Path) -> None:
    log = await opened(path)
    await log.append(FIRST)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="damaged"):
        await opened(path)
