# SPDX-License-Identifier: Apache-2.0
"""What a TDX domain's event log says, once it has been shown to lead to the RTMRs.

In a log, index 1 to 4 are RTMR 0 to 3 (UEFI 2.10, §38.4.1); index 0 would be MRTD, which
is not extended.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from cocos._types import JsonObject
from cocos.errors import Finding, FormatError
from cocos.evidence.event_details import details, runtime_event
from cocos.evidence.eventlog import NO_ACTION, Event
from cocos.verifiers import _measured
from cocos.verifiers._measured import changed, named, shown

SHA384: Final = "sha384"
COMPUTATION_INDEX: Final = 4  # RTMR 3
_LOG: Final = "tdx.event-log"


def check_log(events: Sequence[Event], rtmrs: Sequence[bytes]) -> list[Finding]:
    """Replay a domain's events; return every register, and event, that does not fit.

    Args:
        events: All of them, in order.
        rtmrs: The four registers as quoted.

    Raises:
        FormatError: an event has no SHA-384 digest.
    """
    findings = [
        *shown(changed([*filter(_is_vouched, events)], SHA384, _LOG), _LOG),
        *shown(_disguised(events), _LOG),
    ]
    values = [bytes(len(each)) for each in rtmrs]
    for event in events:
        if not _is_vouched(event):
            continue
        if SHA384 not in event.digests:
            raise FormatError("an event of the log has no SHA-384 digest")
        value = values[event.index - 1]
        values[event.index - 1] = hashlib.sha384(value + event.digests[SHA384]).digest()
    for number, (replayed, quoted) in enumerate(zip(values, rtmrs, strict=True)):
        if replayed != quoted:
            problem = (
                f"the event log does not lead to the quoted value; RTMR {number} is index "
                f"{number + 1} in the log"
            )
            findings.append(Finding(f"tdx.rtmr_{number}", problem, quoted.hex(), replayed.hex()))
    return findings


def claims(events: Sequence[Event]) -> JsonObject:
    """Return the events that a register vouches for, and what the agent measured.

    Raises:
        FormatError: a computation's event is not as the agent writes it.
    """
    vouched = [*filter(_is_vouched, events)]
    return {
        "uefi_event_logs": [_shown(event) for event in vouched],
        **_measured.runtime_claims(vouched, COMPUTATION_INDEX),
    }


def _shown(event: Event) -> JsonObject:
    return {
        "index": event.index,
        "type_name": event.type_name,
        # Of other hashes anybody may have written what he likes: no register vouches for them.
        "digests": [{"alg": "SHA-384", "digest": event.digests[SHA384].hex()}],
        "event": base64.b64encode(event.data).decode("ascii"),
        "details": details(event),
        "digest_matches_event": event.digest_matches(SHA384),
    }


def _is_vouched(event: Event) -> bool:
    """Tell whether a quoted register shows that this was measured, once it is replayed."""
    return 1 <= event.index <= COMPUTATION_INDEX and event.type != NO_ACTION


def _disguised(events: Sequence[Event]) -> Iterator[Finding]:
    """Yield the events in the computations' register that are no runtime events.

    The type of an event is not measured: as another one it would be replayed all the same,
    and a computation would be missing from the claims.
    """
    for number, event in enumerate(events):
        own = event.index == COMPUTATION_INDEX and event.type != NO_ACTION
        if own and runtime_event(event) is None:
            problem = f"{named(events, number)} is no runtime event; RTMR 3 is for them alone"
            yield Finding(f"{_LOG}.{number}", problem, event.type_name, "EV_EVENT_TAG")
