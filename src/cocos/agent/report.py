# SPDX-License-Identifier: Apache-2.0
"""What the agent tells about a run: events, log lines, failures in detail.

Whoever receives this is not trusted with data. Events therefore hold names, digests,
addresses and reasons. One exception is wanted: the last lines of an algorithm that
failed, without which nobody could repair it. An algorithm must not print what its
operator may not see.
"""

import codecs
import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cocos._types import JsonObject
from cocos.errors import CocosError, ComputationError

LOG_BYTES = 500
"""Longest message of a log entry, UTF-8."""

ORIGINATOR = "agent"

INTERRUPTED = "Interrupted"
ENDINGS = frozenset({"Complete", "Failed", INTERRUPTED})
"""Types of the events after which nothing more is told of a computation."""

_LAYER = re.compile(r"layer (?:\d+ \()?(sha256:[0-9a-f]{64})")


class Status(enum.StrEnum):
    """Status of an event, as on the wire."""

    STARTING = "Starting"
    IN_PROGRESS = "InProgress"
    READY = "Ready"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"
    WARNING = "Warning"


class Level(enum.IntEnum):
    """Level of a log entry; the names are those on the wire."""

    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40

    @classmethod
    def parse(cls, text: str) -> "Level":
        """Return the level of that name, in any case; INFO for the empty text."""
        return cls["WARN" if text.upper() == "WARNING" else text.upper() or "INFO"]


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of a computation.

    Attributes:
        type: Name of the state it belongs to.
        details: JSON; for a failure step, resource, layer, code, reason, exit code, tail.
    """

    computation: str
    type: str
    status: Status
    details: JsonObject = field(default_factory=dict)


class Reporter(Protocol):
    """Takes what the agent tells; never blocks."""

    def event(self, happening: Happening, /) -> None: ...

    def log(self, computation: str, level: Level, message: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run we are, for messages.

    Attributes:
        step: ``resolve``, ``measure``, ``fetch``, ``unpack``, ``run``, ``collect`` or ``deliver``.
        resource: ``algorithm``, ``datasets[0]`` or empty.
        url: Where the resource comes from, or empty.
    """

    step: str
    resource: str = ""
    url: str = ""


class Narrator(Protocol):
    """Is told where the work is and what it says."""

    def at(self, place: Place, /) -> None: ...

    def say(self, level: Level, message: str, /) -> None: ...


def failure(place: Place, error: CocosError) -> JsonObject:
    """Return the details of the event for a failure."""
    details: JsonObject = {"step": place.step}
    if place.resource:
        details["resource"] = place.resource
        details["url"] = place.url
    layer = _LAYER.search(error.message)
    if layer is not None:
        details["layer"] = layer[1]
    details["code"] = error.code
    details["reason"] = error.message
    if error.hint:
        details["hint"] = error.hint
    if isinstance(error, ComputationError):
        details["exit_code"] = error.exit_status
        details["tail"] = error.tail
    for name in ("reason", "hint"):
        if name in details:  # names of files need not be text, but what we send must be
            details[name] = details[name].encode(errors="backslashreplace").decode()
    return details


def pieces(text: str, limit: int = LOG_BYTES) -> Iterator[str]:
    """Split text into pieces of at most ``limit`` UTF-8 bytes, never inside a character."""
    data = text.encode(errors="replace")
    while len(data) > limit:
        cut = limit
        while data[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - a UTF-8 continuation byte
            cut -= 1
        yield data[:cut].decode()
        data = data[cut:]
    if data:
        yield data.decode()


class Lines:
    """Turns the bytes of a program's output into lines of text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that are complete, and pieces of one that is endless."""
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        yield from (line.rstrip("\r") for line in lines if line.strip())
        if len(self._rest) > LOG_BYTES:
            yield self._rest
            self._rest = ""

    def end(self) -> Iterator[str]:
        """Yield what is left."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        if rest.strip():
            yield rest
