# SPDX-License-Identifier: Apache-2.0
"""What is the same in the event logs of TPMs and of TDX: text, computations, what is shown."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import Finding
from cocos.evidence.event_details import runtime_event, summary
from cocos.evidence.eventlog import Event
from cocos.wire.manifest.event import EVENT_DOMAIN, EVENT_OPERATION, ComputationEvent

SHOWN: Final = 16
"""Events that are described of those with the same fault."""

# Their digest is by definition over the event's data (Firmware Profile, table 27).
_OVER_DATA: Final = {"EV_SEPARATOR", "EV_EFI_ACTION", "EV_EFI_VARIABLE_DRIVER_CONFIG"}


def named(events: Sequence[Event], number: int) -> str:
    """Return how people call an event of a log."""
    return f"event {number} ({summary(events[number])})"


def is_over_data(event: Event) -> bool:
    """Tell whether an event's digest is by definition over its text."""
    return event.type_name in _OVER_DATA or runtime_event(event) is not None


def changed(events: Sequence[Event], algorithm: str, step: str) -> Iterator[Finding]:
    """Yield the events whose digest is by definition over their text, and is not."""
    for number, event in enumerate(events):
        if is_over_data(event) and not event.digest_matches(algorithm):
            yield Finding(
                f"{step}.{number}",
                f"the text of {named(events, number)} is not what was measured",
                actual=hashlib.new(algorithm, event.data).hexdigest(),
                expected=event.digests[algorithm].hex()
                if algorithm in event.digests
                else "no digest",
            )


def shown(findings: Iterator[Finding], step: str) -> Iterator[Finding]:
    """Yield the first of many findings of one kind."""
    yield from itertools.islice(findings, SHOWN)
    if next(findings, None) is not None:
        yield Finding(step, f"more than {SHOWN} events are like the last one")


def runtime_claims(vouched: Iterable[Event], register: int) -> JsonObject:
    """Return what the agent measured since boot, in order.

    ``computations`` lists those of the computations' own register, ``computation`` is the
    only one if there is one; ``runtime_events`` has everything else that was measured.

    Args:
        vouched: Events that a register of the evidence shows to have been measured.
        register: The computations' own.

    Raises:
        FormatError: a computation's event is not as the agent writes it.
    """
    computations: list[JsonObject] = []
    others: list[JsonObject] = []
    for event in vouched:
        found = runtime_event(event)
        if found is None:
            continue
        of_ours = (found.domain, found.operation) == (EVENT_DOMAIN, EVENT_OPERATION)
        if of_ours and event.index == register:
            computations.append(ComputationEvent.parse(found.content).claims())
        else:
            others.append({"index": event.index, **msgspec.to_builtins(found)})
    claims: JsonObject = {"computations": computations, "runtime_events": others}
    if len(computations) == 1:
        claims["computation"] = computations[0]
    return claims
