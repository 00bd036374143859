# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC240 - small files of the test's own
"""A crash at any point leaves a log that explains the register."""

import hashlib
import stat
from pathlib import Path

import pytest
from _registers import RegisterAttester

from cocos.attestation_agent import event_log
from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.event_log import NOTE, EventLog
from cocos.errors import CallerError, ConfigError, IntegrityError, StateError, UnreachableError
from cocos.evidence.eventlog import parse_records, replay

FIRST, SECOND = tagged_event("d", "o", "first"), tagged_event("d", "o", "second")


@pytest.fixture
def attester() -> RegisterAttester:
    return RegisterAttester()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent" / "eventlog"


async def opened(path: Path, attester: RegisterAttester) -> EventLog:
    log = EventLog(path, attester, 14)
    await log.open()
    return log


def events(data: bytes) -> list[bytes]:
    return [event.data for event in parse_records(data)]


async def test_the_log_replays_to_the_register(path: Path, attester: RegisterAttester) -> None:
    log = await opened(path, attester)
    await log.append(FIRST)
    await log.append(SECOND, 14)
    data = await log.read()
    assert events(data) == [FIRST, SECOND]
    assert replay(parse_records(data), 14) == attester.registers[14]
    assert not (path.parent / NOTE).exists()
    await opened(path, attester)


async def test_records_are_those_of_the_guest_components(
    path: Path, attester: RegisterAttester
) -> None:
    log = await opened(path, attester)
    event = tagged_event("domain", "operation", "content")
    await log.append(event)
    digest = "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351"
    assert (await log.read()).hex() == (
        "0e000000" + "06000000" + "01000000" + "0b00" + digest + "20000000" + event.hex()
    )


async def test_the_log_is_for_its_owner_only(path: Path, attester: RegisterAttester) -> None:
    log = await opened(path, attester)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await log.append(FIRST)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_an_extension_that_failed_is_not_logged(
    path: Path, attester: RegisterAttester
) -> None:
    log = await opened(path, attester)
    await log.append(FIRST)
    attester.before = True
    with pytest.raises(UnreachableError):
        await log.append(SECOND)
    assert events(await log.read()) == [FIRST]
    await log.append(SECOND)
    assert events(await log.read()) == [FIRST, SECOND]


async def test_an_extension_that_only_seems_to_have_failed_is_logged_once(
    path: Path, attester: RegisterAttester
) -> None:
    log = await opened(path, attester)
    attester.after = True
    await log.append(FIRST)
    assert events(await log.read()) == [FIRST]
    assert replay(parse_records(await log.read()), 14) == attester.registers[14]


@pytest.mark.parametrize("extended", [False, True])
async def test_a_crash_in_between_is_settled_at_the_next_start(
    path: Path, attester: RegisterAttester, *, extended: bool
) -> None:
    """The register stopped to answer, and then we were killed."""
    log = await opened(path, attester)
    await log.append(FIRST)
    setattr(attester, "after" if extended else "before", True)
    attester.dies = True
    with pytest.raises(UnreachableError):
        await log.append(SECOND)
    assert (path.parent / NOTE).exists()
    attester.reachable = True
    again = await opened(path, attester)
    assert events(await again.read()) == [FIRST, *([SECOND] if extended else [])]
    assert not (path.parent / NOTE).exists()
    await again.append(tagged_event("d", "o", "third"))
    await opened(path, attester)


@pytest.mark.parametrize("torn", [b"", b"\x0e\x00", b"whole"])
async def test_a_note_is_followed_however_far_the_log_was_written(
    path: Path, attester: RegisterAttester, torn: bytes
) -> None:
    log = await opened(path, attester)
    await log.append(FIRST)
    before = path.read_bytes()
    await log.append(SECOND)
    entry = path.read_bytes()[len(before) :]
    note = len(before).to_bytes(8, "big") + attester.registers[14] + entry
    (path.parent / NOTE).write_bytes(note)
    path.write_bytes(before + (entry if torn == b"whole" else torn))
    assert events(await (await opened(path, attester)).read()) == [FIRST, SECOND]


async def test_a_register_that_somebody_else_extended_is_noticed(
    path: Path, attester: RegisterAttester
) -> None:
    log = await opened(path, attester)
    await log.append(FIRST)
    await attester.extend_register(14, hashlib.sha256(b"somebody else").digest())
    with pytest.raises(IntegrityError, match="neither the event log"):
        await log.append(SECOND)
    with pytest.raises(IntegrityError):
        await opened(path, attester)


@pytest.mark.parametrize("register", [0, 8, 13, 15, 16, 23])
async def test_no_other_register_is_extended(
    path: Path, attester: RegisterAttester, register: int
) -> None:
    """A guest's programs could make one up that is no log's."""
    log = await opened(path, attester)
    with pytest.raises(CallerError, match="register 14"):
        await log.append(FIRST, register)
    assert await log.read() == b""
    assert not attester.registers.get(register)


async def test_what_a_crash_tore_is_mended_when_nothing_was_measured(
    path: Path, attester: RegisterAttester
) -> None:
    log = await opened(path, attester)
    await log.append(FIRST)
    before = path.read_bytes()
    (path.parent / NOTE).write_bytes(len(before).to_bytes(8, "big") + bytes(32) + b"entry")
    path.write_bytes(before + b"ent")
    assert events(await (await opened(path, attester)).read()) == [FIRST]
    assert path.read_bytes() == before


async def test_a_log_of_another_boot_is_refused(path: Path, attester: RegisterAttester) -> None:
    await (await opened(path, attester)).append(FIRST)
    with pytest.raises(IntegrityError, match="does not explain register 14"):
        await opened(path, RegisterAttester())


async def test_a_lost_log_is_refused(path: Path, attester: RegisterAttester) -> None:
    await (await opened(path, attester)).append(FIRST)
    path.unlink()
    with pytest.raises(IntegrityError, match="does not explain register 14"):
        await opened(path, attester)


@pytest.mark.parametrize("data", [b"x", b"\x0e\0\0\0" * 5])
async def test_a_damaged_log_is_refused(
    path: Path, attester: RegisterAttester, data: bytes
) -> None:
    await opened(path, attester)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        await opened(path, attester)
    path.write_bytes(b"")
    (path.parent / NOTE).write_bytes(bytes(40))
    with pytest.raises(IntegrityError, match="damaged"):
        await opened(path, attester)


async def test_a_log_has_an_end(
    path: Path, attester: RegisterAttester, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert event_log.MAX_LOG_BYTES == 2**19
    log = await opened(path, attester)
    await log.append(FIRST)
    monkeypatch.setattr(event_log, "MAX_LOG_BYTES", 2 * path.stat().st_size)
    await log.append(FIRST)
    value = attester.registers[14]
    with pytest.raises(StateError, match="full"):
        await log.append(SECOND)
    assert attester.registers[14] == value


async def test_a_folder_that_cannot_be_written_is_named(attester: RegisterAttester) -> None:
    with pytest.raises(ConfigError, match="cannot write the event log /proc/none"):
        await opened(Path("/proc/none/eventlog"), attester)


async def test_without_registers_there_is_no_log(path: Path) -> None:
    class Bare(RegisterAttester):
        register_hash = None

    log = await opened(path, Bare())
    assert not log.supported
    assert await log.read() == b""
    assert not path.parent.exists()
