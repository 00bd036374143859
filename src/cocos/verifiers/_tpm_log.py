# SPDX-License-Identifier: Apache-2.0
"""What a TPM's event logs say, once they have been shown to lead to the quoted PCRs."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding
from cocos.evidence import eventlog, tpm
from cocos.evidence.event_details import details, runtime_event
from cocos.evidence.eventlog import NO_ACTION, SHA256, Event
from cocos.verifiers import _measured
from cocos.verifiers._measured import changed, is_over_data, named, shown

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
_LOG: Final = "tpm.event-log"
_CMDLINE_LABEL: Final = b".cmdline\0"
_ENDS: Final = (b"", b"\n", b"\0", b"\n\0")
EXPLAINED: Final = 4096
"""Extensions of PCRs that the search for one event to blame may take, for all PCRs together."""


def check_logs(events: Sequence[Event], pcrs: Sequence[bytes], *, firmware: int) -> list[Finding]:
    """Replay a machine's events; return every PCR, and event, that does not fit.

    Every event is looked at a few times, however many there are; of those that do not fit,
    the first :data:`SHOWN` are described.

    Args:
        events: All of them, in order.
        pcrs: Values of PCR 0 to 23 as quoted.
        firmware: How many of them are the firmware's log; without it only runtime events
            can be replayed.
    """
    findings = [
        *shown(changed(events, SHA256, _LOG), _LOG),
        *shown(_disguised(events, firmware), _LOG),
    ]
    logs: dict[int, list[int]] = {}
    for number, event in enumerate(events):
        logs.setdefault(event.index, []).append(number)
    known = _ALWAYS if firmware else frozenset({COMPUTATION_PCR})
    vouched = {event.index for event in events if _is_vouched(event)}
    budget = _Budget(EXPLAINED)
    for index in sorted(known | vouched):
        log = _Log(events, logs.get(index, []), index)
        if log.values[-1] != pcrs[index]:
            problem = "the event log does not lead to the quoted value: "
            problem += log.blame(pcrs[index], budget)
            found, replayed = pcrs[index].hex(), log.values[-1].hex()
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
    """Return what the agent measured since boot; see :func:`_measured.runtime_claims`.

    Raises:
        FormatError: a computation's event is not as the agent writes it.
    """
    return _measured.runtime_claims(filter(_is_vouched, events), COMPUTATION_PCR)


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


def _disguised(events: Sequence[Event], firmware: int) -> Iterator[Finding]:
    """Yield the events that stand where only runtime events may.

    The type of an event is not measured: as another one it would be replayed all the same,
    and a computation would be missing from the claims.
    """
    for number, event in enumerate(events):
        in_its_pcr = event.index == COMPUTATION_PCR and event.type != NO_ACTION
        if (number >= firmware or in_its_pcr) and runtime_event(event) is None:
            yield Finding(
                f"{_LOG}.{number}",
                f"{named(events, number)} is no runtime event, and nothing else belongs into "
                f"PCR {COMPUTATION_PCR} or into the attestation agent's log",
                actual=f"PCR {event.index}, {event.type_name}",
                expected="EV_EVENT_TAG of the attestation agent",
            )


def _is_vouched(event: Event) -> bool:
    """Tell whether a quoted PCR shows that this event was measured, once it is replayed."""
    counts = event.index < _RESETTABLE and event.index not in _NEVER
    return counts and event.type != NO_ACTION


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


class _Budget:
    """How much an explanation may cost, in extensions of a PCR."""

    def __init__(self, left: int) -> None:
        self._left = left

    def spend(self, count: int) -> bool:
        """Tell whether so many are left, and take them."""
        if count > self._left:
            return False
        self._left -= count
        return True


class _Log:
    """The events of one PCR, replayed.

    Args:
        events: Of all PCRs.
        numbers: Which of them are of this one.
        index: The PCR.

    Raises:
        FormatError: one of them has no SHA-256 digest.
    """

    def __init__(self, events: Sequence[Event], numbers: Sequence[int], index: int) -> None:
        self._events = events
        self._own = [number for number in numbers if events[number].type != NO_ACTION]
        self.values = tuple(eventlog.values((events[number] for number in numbers), index))
        """Before the first event, and after each."""

    def blame(self, quoted: bytes, budget: _Budget) -> str:
        """Say which event is the first that cannot be right, as far as the budget goes."""
        events, own = self._events, self._own
        if not own:
            return "it has no events of this PCR, but something was measured"
        for number, before in zip(own, self.values, strict=False):
            if before == quoted:
                return f"{named(events, number)} and what follows were never measured"
        for place, number in enumerate(own):
            if not budget.spend(len(own) - place):
                break  # it would take the square of what was sent
            if self._without(place) == quoted:
                return f"{named(events, number)} was never measured"
        for number in own:
            if is_over_data(events[number]) and not events[number].digest_matches(SHA256):
                return f"{named(events, number)} is the first that is not what was measured"
        return (
            f"events are missing, or others than measured; it begins with {named(events, own[0])}"
        )

    def _without(self, place: int) -> bytes:
        value = self.values[place]
        for number in self._own[place + 1 :]:
            value = tpm.extend(value, self._events[number].digests[SHA256])
        return value
