# SPDX-License-Identifier: Apache-2.0
"""What a TPM's event logs say, once they have been shown to lead to the quoted PCRs."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding
from cocos.evidence import eventlog
from cocos.evidence.event_details import details, runtime_event, summary
from cocos.evidence.eventlog import NO_ACTION, SHA256, Event
from cocos.wire.manifest.event import EVENT_DOMAIN, EVENT_OPERATION, ComputationEvent

COMPUTATION_PCR: Final = 14
INIT_DATA_PCR: Final = 8
KERNEL_IMAGE_PCR: Final = 11
DEBUG_WORD: Final = "cocos.debug"
"""Word of the kernel command line, alone or with a value, that makes an image a debug one."""

_RESETTABLE: Final = 16  # software can reset PCR 16 and 23; 17 to 22 start at other values
# These hold nothing that is not in a log. 8 is init data; 10 has a log of the kernel's
# own; 15 belongs to whoever extends it in userspace.
_ALWAYS: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14})
_NEVER: Final = frozenset({INIT_DATA_PCR, 10})
# Their digest is by definition over the event's data (Firmware Profile, table 27).
_OVER_DATA: Final = {"EV_SEPARATOR", "EV_EFI_ACTION", "EV_EFI_VARIABLE_DRIVER_CONFIG"}
_CMDLINE_LABEL: Final = b".cmdline\0"
_ENDS: Final = (b"", b"\n", b"\0", b"\n\0")
_LOOKED_THROUGH: Final = 256  # events of a PCR in which a single one to blame is looked for


def check_logs(events: Sequence[Event], pcrs: Sequence[bytes], *, firmware: int) -> list[Finding]:
    """Replay a machine's events; return every PCR, and event, that does not fit.

    Args:
        events: All of them, in order.
        pcrs: Values of PCR 0 to 23 as quoted.
        firmware: How many of them are the firmware's log; without it only runtime events
            can be replayed.
    """
    findings = [
        Finding(
            f"tpm.event-log.{number}",
            f"the text of {_name(events, number)} is not what was measured",
            actual=hashlib.sha256(event.data).hexdigest(),
            expected=event.digests[SHA256].hex() if SHA256 in event.digests else "no digest",
        )
        for number, event in enumerate(events)
        if _is_over_data(event) and not event.digest_matches(SHA256)
    ]
    findings += _disguised(events, firmware)
    known = _ALWAYS if firmware else frozenset({COMPUTATION_PCR})
    vouched = {event.index for event in events if _is_vouched(event)}
    for index in sorted(known | vouched):
        value = eventlog.replay(events, index)
        if value != pcrs[index]:
            problem = "the event log does not lead to the quoted value: "
            problem += _blame(events, index, pcrs[index])
            found, replayed = pcrs[index].hex(), value.hex()
            findings.append(Finding(f"tpm.pcr{index:02}", problem, found, replayed))
    return findings


def uefi_claims(events: Sequence[Event]) -> list[JsonObject]:
    """Return the firmware's events that were measured, for policies; ``index`` is the PCR."""
    return [
        {
            "index": event.index,
            "type": event.type_name,
            "digest": event.digests.get(SHA256, b"").hex(),
            "details": details(event),
            "digest_matches_event": event.digest_matches(SHA256),
        }
        for event in events
        if _is_vouched(event)
    ]


def runtime_claims(events: Sequence[Event]) -> JsonObject:
    """Return what the agent measured since boot, in order.

    ``computations`` lists those of the computations' own PCR, ``computation`` is the only
    one if there is one; ``runtime_events`` has everything else that was measured.

    Raises:
        FormatError: a computation's event is not as the agent writes it.
    """
    computations: list[JsonObject] = []
    others: list[JsonObject] = []
    for event in events:
        found = runtime_event(event)
        if found is None or not _is_vouched(event):
            continue
        named = (found.domain, found.operation) == (EVENT_DOMAIN, EVENT_OPERATION)
        if named and event.index == COMPUTATION_PCR:
            computations.append(ComputationEvent.parse(found.content).claims())
        else:
            others.append({"index": event.index, **msgspec.to_builtins(found)})
    claims: JsonObject = {"computations": computations, "runtime_events": others}
    if len(computations) == 1:
        claims["computation"] = computations[0]
    return claims


def cmdline_claims(events: Sequence[Event], cmdline: str | None) -> JsonObject:
    """Return the kernel's command line and whether it is that of a debug image.

    Without a unified kernel image in the log nothing vouches for it: no claims.

    Raises:
        EvidenceError: another command line was measured.
    """
    measured = _cmdline_digest(events)
    if measured is None or cmdline is None:
        return {}
    # A section may end in a newline or a zero, which the kernel does not show.
    text = cmdline.rstrip("\n\0").encode("utf-8", "replace")
    if any(hashlib.sha256(text + end).digest() == measured for end in _ENDS):
        debug = any(word.partition("=")[0] == DEBUG_WORD for word in cmdline.split())
        return {"cmdline": cmdline, "debug": debug}
    problem = f"this is not the command line that was measured into PCR {KERNEL_IMAGE_PCR}"
    finding = Finding("tpm.cmdline", problem, cmdline, f"SHA-256 {measured.hex()}")
    raise EvidenceError(problem, findings=(finding,))


def _disguised(events: Sequence[Event], firmware: int) -> list[Finding]:
    """Return the events that stand where only runtime events may.

    The type of an event is not measured: as another one it would be replayed all the same,
    and a computation would be missing from the claims.
    """
    return [
        Finding(
            f"tpm.event-log.{number}",
            f"{_name(events, number)} is no runtime event, and nothing else belongs into "
            f"PCR {COMPUTATION_PCR} or into the attestation agent's log",
            actual=f"PCR {event.index}, {event.type_name}",
            expected="EV_EVENT_TAG of the attestation agent",
        )
        for number, event in enumerate(events)
        if (number >= firmware or (event.index == COMPUTATION_PCR and event.type != NO_ACTION))
        and runtime_event(event) is None
    ]


def _is_vouched(event: Event) -> bool:
    """Tell whether a quoted PCR shows that this event was measured, once it is replayed."""
    counts = event.index < _RESETTABLE and event.index not in _NEVER
    return counts and event.type != NO_ACTION


def _is_over_data(event: Event) -> bool:
    return event.type_name in _OVER_DATA or runtime_event(event) is not None


def _cmdline_digest(events: Sequence[Event]) -> bytes | None:
    """systemd-stub measures each section's name and then its content."""
    label = hashlib.sha256(_CMDLINE_LABEL).digest()
    own = [
        event.digests.get(SHA256)
        for event in events
        if event.index == KERNEL_IMAGE_PCR and _is_vouched(event)
    ]
    following = dict(itertools.pairwise(own))
    return following.get(label)


def _blame(events: Sequence[Event], index: int, quoted: bytes) -> str:
    """Say which event of a PCR is the first that cannot be right."""
    log = {number: event for number, event in enumerate(events) if event.index == index}
    own = [number for number, event in log.items() if event.type != NO_ACTION]
    if not own:
        return "it has no events of this PCR, but something was measured"
    for number, before in zip(own, eventlog.values(log.values(), index), strict=False):
        if before == quoted:
            return f"{_name(events, number)} and what follows were never measured"
    # Quadratic: not for whatever a stranger sends.
    for number in own if len(log) <= _LOOKED_THROUGH else ():
        others = (event for place, event in log.items() if place != number)
        if eventlog.replay(others, index) == quoted:
            return f"{_name(events, number)} was never measured"
    for number in own:
        if not log[number].digest_matches(SHA256) and _is_over_data(log[number]):
            return f"{_name(events, number)} is the first that is not what was measured"
    return f"events are missing, or others than measured; it begins with {_name(events, own[0])}"


def _name(events: Sequence[Event], number: int) -> str:
    return f"event {number} ({summary(events[number])})"
