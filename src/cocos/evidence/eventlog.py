# SPDX-License-Identifier: Apache-2.0
"""TCG event logs in the crypto-agile form, little-endian, and what they add up to.

After the TCG PC Client Platform Firmware Profile, §10: a first entry in the old form that
says which hashes follow, then TCG_PCR_EVENT2 entries. The attestation agent appends its
runtime events as entries of the same form without the first one (AAEL).
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cocos.errors import FormatError
from cocos.evidence._reader import Reader
from cocos.evidence.tpm import extend

MAX_EVENTS: Final = 4096
MAX_EVENT_BYTES: Final = 2**20
SHA256: Final = "sha256"
ALGORITHMS: Final = MappingProxyType(
    {0x0004: "sha1", 0x000B: SHA256, 0x000C: "sha384", 0x000D: "sha512", 0x0012: "sm3"}
)
"""TPM_ALG_ID → name of the hash."""

_SIZES: Final = {"sha1": 20, SHA256: 32, "sha384": 48, "sha512": 64, "sm3": 32}
_SHA1_BYTES: Final = 20
_SPEC_ID: Final = b"Spec ID Event03\0"
_MAX_DIGESTS: Final = 16
_STARTUP: Final = b"StartupLocality\0"

EMPTY_CC_LOG: Final = struct.pack("<II20sI", 0, 3, b"", 37) + struct.pack(
    "<24sI4HB", b"", 2, 0x000C, 48, 0x0012, 32, 0
)
"""First entry of a TDX guest's log where the firmware wrote none, as the guest components
write it: its signature is missing, and it names SHA-384 and SM3."""

NO_ACTION: Final = 0x00000003
"""EV_NO_ACTION: informative, never extended."""
EVENT_TAG: Final = 0x00000006
TYPES: Final = MappingProxyType(
    {
        0x00000000: "EV_PREBOOT_CERT",
        0x00000001: "EV_POST_CODE",
        NO_ACTION: "EV_NO_ACTION",
        0x00000004: "EV_SEPARATOR",
        0x00000005: "EV_ACTION",
        EVENT_TAG: "EV_EVENT_TAG",
        0x00000007: "EV_S_CRTM_CONTENTS",
        0x00000008: "EV_S_CRTM_VERSION",
        0x00000009: "EV_CPU_MICROCODE",
        0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
        0x0000000B: "EV_TABLE_OF_DEVICES",
        0x0000000C: "EV_COMPACT_HASH",
        0x0000000D: "EV_IPL",
        0x0000000E: "EV_IPL_PARTITION_DATA",
        0x0000000F: "EV_NONHOST_CODE",
        0x00000010: "EV_NONHOST_CONFIG",
        0x00000011: "EV_NONHOST_INFO",
        0x00000012: "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x80000002: "EV_EFI_VARIABLE_BOOT",
        0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
        0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x80000006: "EV_EFI_GPT_EVENT",
        0x80000007: "EV_EFI_ACTION",
        0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x80000009: "EV_EFI_HANDOFF_TABLES",
        0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000000B: "EV_EFI_HANDOFF_TABLES2",
        0x8000000C: "EV_EFI_VARIABLE_BOOT2",
        0x80000010: "EV_EFI_HCRTM_EVENT",
        0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
        0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
        0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a log.

    Attributes:
        index: Register that was extended: a PCR, or a TDX register's number in its log.
        type: Event type as in :data:`TYPES`.
        digests: Name of a hash → what was extended into the register of that bank.
        data: What the digests are over, or a description of it: depends on the type.
    """

    index: int
    type: int
    digests: dict[str, bytes]
    data: bytes = field(repr=False)

    @property
    def type_name(self) -> str:
        """Name of the type; a hex number if nobody has named it."""
        return TYPES.get(self.type, f"{self.type:#010x}")

    def digest_matches(self, algorithm: str) -> bool:
        """Tell whether the digest of that bank is the hash of exactly ``data``."""
        if algorithm not in self.digests or algorithm not in hashlib.algorithms_available:
            return False
        return hashlib.new(algorithm, self.data).digest() == self.digests[algorithm]


def parse_log(data: bytes) -> tuple[Event, ...]:
    """Parse a log of the firmware: with its first entry, without that in the result.

    Raises:
        FormatError: another form, cut short, or unreasonably large.
    """
    if not data:
        return ()
    reader = Reader(data, "the event log", "little")
    sizes = _first_entry(reader)
    return _entries(reader, sizes)


def log_end(data: bytes) -> int:
    """Return where the events of a firmware's log end and the rest of its table begins.

    Raises:
        FormatError: another form, cut short, or unreasonably large.
    """
    reader = Reader(data, "the event log", "little")
    _entries(reader, _first_entry(reader))
    return reader.position


def parse_records(data: bytes) -> tuple[Event, ...]:
    """Parse entries without a first one: the attestation agent's runtime events.

    Raises:
        FormatError: another form, cut short, or unreasonably large.
    """
    sizes = {number: _SIZES[name] for number, name in ALGORITHMS.items()}
    return _entries(Reader(data, "the runtime event log", "little"), sizes)


def values(events: Iterable[Event], index: int) -> Iterator[bytes]:
    """Yield a SHA-256 PCR's value before the first of its events, and after each of them.

    Raises:
        FormatError: an event of that PCR has no SHA-256 digest.
    """
    value = bytes(hashlib.sha256().digest_size)
    fresh = True
    for event in events:
        if event.index != index:
            continue
        if event.type == NO_ACTION:
            # Firmware Profile §10.4.5.3: PCR 0 starts with the locality of TPM2_Startup.
            if fresh and index == 0 and event.data[:-1] == _STARTUP:
                value = value[:-1] + event.data[-1:]
            continue
        if SHA256 not in event.digests:
            raise FormatError(f"an event of PCR {index} has no SHA-256 digest")
        if fresh:
            yield value
            fresh = False
        value = extend(value, event.digests[SHA256])
        yield value
    if fresh:
        yield value


def replay(events: Iterable[Event], index: int) -> bytes:
    """Return the value of a SHA-256 PCR after ``events``.

    Raises:
        FormatError: an event of that PCR has no SHA-256 digest.
    """
    *_, last = values(events, index)
    return last


def first_difference(found: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Return the position of the first element that differs; None when all are equal."""
    for position in range(max(len(found), len(wanted))):
        if found[position : position + 1] != wanted[position : position + 1]:
            return position
    return None


def _first_entry(reader: Reader) -> dict[int, int]:
    """Read TCG_EfiSpecIDEvent (§10.4.5.1); return TPM_ALG_ID → length of a digest."""
    reader.u32()  # the register: of no importance to an event without action
    reader.expect(reader.u32(), NO_ACTION, "first event type")
    reader.take(_SHA1_BYTES)
    inner = Reader(reader.sized32(MAX_EVENT_BYTES), "the event log's first entry", "little")
    # The guest components write zeros where the firmware of a TDX guest left no log.
    if inner.take(len(_SPEC_ID)) not in {_SPEC_ID, bytes(len(_SPEC_ID))}:
        raise FormatError("the event log is not in the crypto-agile form")
    inner.take(8)  # platform class, version, size of UINTN
    count = inner.u32()
    if count > _MAX_DIGESTS:
        raise FormatError(f"the event log names {count} hashes")
    sizes = {inner.u16(): inner.u16() for _ in range(count)}
    inner.take(inner.u8())  # vendor information
    inner.end()
    for number, size in sizes.items():
        known = ALGORITHMS.get(number)
        if known is not None and size != _SIZES[known]:
            raise FormatError(f"the event log says that {known} has {size} bytes")
    return sizes


def _entries(reader: Reader, sizes: dict[int, int]) -> tuple[Event, ...]:
    events: list[Event] = []
    while not reader.only_filling():
        if len(events) == MAX_EVENTS:
            raise FormatError(f"the event log has more than {MAX_EVENTS} events")
        events.append(_entry(reader, sizes))
    return tuple(events)


def _entry(reader: Reader, sizes: dict[int, int]) -> Event:
    index, kind, count = reader.u32(), reader.u32(), reader.u32()
    digests: dict[str, bytes] = {}
    for _ in range(count):  # all of different kinds: no more than there are sizes
        number = reader.u16()
        if number not in sizes:
            raise FormatError(f"an event has a digest of unknown kind {number:#06x}")
        name = ALGORITHMS.get(number, f"{number:#06x}")
        if name in digests:
            raise FormatError(f"an event has two digests of kind {name}")
        digests[name] = reader.take(sizes[number])
    return Event(index, kind, digests, reader.sized32(MAX_EVENT_BYTES))
