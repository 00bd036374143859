# SPDX-License-Identifier: Apache-2.0
"""The log of runtime events, which never disagrees with the register that it explains.

A register cannot be written back and a file cannot be extended together with it, so every
event is written ahead: note → register → log → note away. Whoever finds a note asks the
register whether it was extended: then the event is added to the log; if not, nothing has
happened, nobody was told otherwise, and the note goes.

A note is u64 big-endian length of the log before the event, the register's value after
it, and the log's entry.
"""

import hashlib
import struct
from pathlib import Path
from typing import Final

import structlog

from cocos.attestation_agent.event import record
from cocos.attesters import Attester
from cocos.errors import CallerError, CocosError, FormatError, IntegrityError, StateError
from cocos.evidence.eventlog import parse_records
from cocos.host.disk import disk_error
from cocos.host.files import read_file, write_atomic

NOTE: Final = ".wal_event_entry"
MAX_LOG_BYTES: Final = 512 * 1024
"""All of it is in every evidence."""

_log = structlog.get_logger(__name__)


class EventLog:
    """Measures events into one register and logs them; one call at a time.

    Args:
        path: The log; its folder is made, for us alone.
        attester: Has the register.
        register: Its number.
    """

    def __init__(self, path: Path, attester: Attester, register: int) -> None:
        self._path = path
        self._note = path.with_name(NOTE)
        self._attester = attester
        self._register = register
        self._algorithm = attester.register_hash or ""

    @property
    def supported(self) -> bool:
        """Whether the platform has registers that software cannot reset."""
        return bool(self._algorithm)

    async def open(self) -> None:
        """Finish what a crash interrupted, and compare the log with the register.

        Raises:
            ConfigError: the log cannot be read or written.
            IntegrityError: the log does not explain the register's value.
        """
        if not self.supported:
            return
        self._make()
        found = await self._attester.read_register(self._register)
        expected = self._replay(await self.read())
        if found != expected:
            raise IntegrityError(
                f"the event log {self._path} does not explain register {self._register}: its "
                f"value is {found.hex()}, the log adds up to {expected.hex()}",
                hint="something else extended it, or the log is of another boot; reboot",
            )

    async def read(self) -> bytes:
        """Return the log: entries without a header, in order."""
        if not self.supported:
            return b""
        await self._settle()
        return self._read()

    async def append(self, event: bytes, register: int | None = None) -> None:
        """Measure an event.

        Args:
            event: What is hashed.
            register: For callers that name one: only ours is possible.

        Raises:
            StateError: the log is full.
            CallerError: another register.
            IntegrityError: the register was extended by somebody else.
        """
        self._check(register)
        log = await self.read()
        digest, entry = self._entry(log, event)
        expected = self._extended(self._replay(log), digest)
        write_atomic(self._note, struct.pack(">Q", len(log)) + expected + entry)
        try:
            await self._attester.extend_register(self._register, digest)
        except CocosError:
            if await self.read() == log:
                raise
        else:
            await self._settle()

    def _make(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise disk_error(error, f"cannot write the event log {self._path}") from error

    def _check(self, register: int | None) -> None:
        if register not in {None, self._register}:
            raise CallerError(
                f"runtime events are measured into register {self._register}, not {register}",
                hint="name that one or none; others belong to the boot, or software resets them",
            )

    def _entry(self, log: bytes, event: bytes) -> tuple[bytes, bytes]:
        """Return an event's digest, and its entry if the log has room for it."""
        digest = hashlib.new(self._algorithm, event).digest()
        number = self._attester.logged_as
        number = self._register if number is None else number
        entry = record(number, digest, event, algorithm=self._algorithm)
        if len(log) + len(entry) > MAX_LOG_BYTES:
            raise StateError(f"the event log is full: {MAX_LOG_BYTES} bytes")
        return digest, entry

    async def _settle(self) -> None:
        """Follow a note, if there is one."""
        try:
            note = self._note.read_bytes()
        except FileNotFoundError:
            return
        size = hashlib.new(self._algorithm).digest_size
        head = struct.Struct(f">Q{size}s")
        if len(note) <= head.size:
            raise IntegrityError(f"{self._note} is damaged", hint="reboot")
        length, expected = head.unpack_from(note)
        entry = note[head.size :]
        log = self._read()[:length]
        found = await self._attester.read_register(self._register)
        if found == expected:
            self._write(log + entry)
        elif found == self._replay(log):
            self._write(log)
            _log.warning("event-log.dropped", problem="an event was never measured")
        else:
            raise IntegrityError(
                f"register {self._register} is {found.hex()}, which neither the event log nor "
                f"{self._note} explains",
                hint="something else extended it; reboot",
            )
        self._note.unlink()

    def _read(self) -> bytes:
        return read_file(self._path, "the event log", limit=MAX_LOG_BYTES)

    def _write(self, log: bytes) -> None:
        if self._read() != log:
            write_atomic(self._path, log)

    def _replay(self, log: bytes) -> bytes:
        """Return the register's value after the events of a log."""
        value = bytes(hashlib.new(self._algorithm).digest_size)
        try:
            events = parse_records(log)
        except FormatError as error:
            raise IntegrityError(f"{self._path} is damaged: {error.message}") from error
        for event in events:
            value = self._extended(value, event.digests[self._algorithm])
        return value

    def _extended(self, value: bytes, digest: bytes) -> bytes:
        return hashlib.new(self._algorithm, value + digest).digest()
