# SPDX-License-Identifier: Apache-2.0
"""What a CVMS knows of its computation, on disk beside the results.

A CVMS may be killed at any point and started again with the same command. Whatever agents are
told, or people are shown, has been written before; what agents say twice is known by what it
says. A run ends when its outcome has been told (:meth:`Ledger.close`), and the next one begins
anew: the same computation may be run again.
"""

import contextlib
import enum
from pathlib import Path

import msgspec

from cocos.errors import FormatError
from cocos.host.files import storing, write_atomic
from cocos.wire import json
from cocos.wire.manifest.identity import Identity

MAX_TOLD = 1000
MAX_GIVEN = 1000
"""VMs that are remembered: a stranger can play many."""


class Verdict(enum.Enum):
    """How a computation ended, from here."""

    COMPLETE = "complete"
    FAILED = "failed"
    REFUSED = "refused"


class Record(msgspec.Struct, frozen=True):
    """One run of a computation.

    Attributes:
        id: Of the computation.
        manifest: Digest of its manifest, hex.
        given: CVMs that have accepted it.
        result: SHA-256 of the sealed result that is stored, hex, or empty.
        verdict: How it ended, or None.
        reason: Why it failed.
        ending: SHA-256 of the event that said so.
        told: SHA-256 of results and endings of earlier runs, which are told no more.
    """

    id: str
    manifest: str
    given: tuple[str, ...] = ()
    result: str = ""
    verdict: Verdict | None = None
    reason: str = ""
    ending: str = ""
    told: tuple[str, ...] = ()


class Ledger:
    """Keeps the record of one computation. Every change is durable when a method returns.

    Args:
        folder: Where results are stored.
        identity: The computation.

    Methods raise StorageError if the disk cannot take it.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._path = folder / f".{identity.id}.cvms-test.json"
        self.record = Record(*identity)
        with storing(self._path), contextlib.suppress(FileNotFoundError, FormatError):
            found: Record = json.decode(self._path.read_bytes(), Record, "the record")
            if (found.id, found.manifest) == identity:
                self.record = found
        self._write(self.record)  # a folder that cannot take a result shows it now

    def given_to(self, job: str) -> None:
        """A CVM has the computation, and works on it."""
        if job not in self.record.given and len(self.record.given) < MAX_GIVEN:
            self._change(given=(*self.record.given, job))

    def stored(self, result: str) -> None:
        """A result has been stored under its name."""
        self._change(result=result)

    def ended(self, verdict: Verdict, reason: str = "", ending: str = "") -> None:
        """The computation has ended."""
        self._change(verdict=verdict, reason=reason, ending=ending)

    def forget_result(self) -> None:
        """The result is not there any more: the run begins again."""
        self._change(result="", verdict=None, reason="", ending="")

    def close(self) -> None:
        """How it ended has been told to whoever had asked."""
        old = self.record
        if old.verdict is not None:
            told = (*old.told, *(each for each in (old.result, old.ending) if each))
            self._write(Record(old.id, old.manifest, told=told[-MAX_TOLD:]))

    def _change(self, **members: object) -> None:
        self._write(msgspec.structs.replace(self.record, **members))

    def _write(self, record: Record) -> None:
        with storing(self._path):
            write_atomic(self._path, json.encode(record))
        self.record = record
