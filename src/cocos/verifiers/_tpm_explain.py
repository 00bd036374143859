# SPDX-License-Identifier: Apache-2.0
"""Why a PCR is not one of the reference values: which event of its log is to blame.

Reference values may say what events lead to them: ``tpm_pcr04_events`` has, for each value
of ``tpm_pcr04``, the list of events in order, each ``{"digest": hex, "event": text}``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import Finding
from cocos.evidence.eventlog import first_difference

_CHECK: Final = re.compile(r"tpm\.(pcr(\d\d))", re.ASCII)
_NONE: Final = {"digest": "", "event": "no event"}
_SHOWN: Final = 20
_INIT_DATA: Final = "pcr08"


def explain(
    finding: Finding, events: Sequence[JsonObject], reference_values: Mapping[str, Any]
) -> Finding:
    """Return ``finding`` with the events of its PCR, if it is about one.

    Args:
        finding: Of a policy.
        events: Claim ``uefi``.
        reference_values: What the operator registered.
    """
    match = _CHECK.fullmatch(finding.check)
    if match is None:
        return finding
    if match[1] == _INIT_DATA:
        text = "its only event is the digest of what the host passed in, which is shown in clear"
        return replace(finding, problem=f"{finding.problem}; {text}")
    found = [_entry(event) for event in events if event["index"] == int(match[2])]
    sequences = _sequences(reference_values.get(f"tpm_{match[1]}_events"))
    text = _difference(found, sequences) if sequences else _listing(found)
    return replace(finding, problem=f"{finding.problem}; {text}")


def _difference(found: list[JsonObject], sequences: list[list[JsonObject]]) -> str:
    """Compare with the sequence that goes along with the log the longest."""
    digests = [entry["digest"] for entry in found]
    places: list[int] = []
    for sequence in sequences:
        place = first_difference(digests, [entry["digest"] for entry in sequence])
        if place is None:
            return "its log is as expected"
        places.append(place)
    best = max(places)
    actual, expected = _at(found, best), _at(sequences[places.index(best)], best)
    return f"event {best + 1} in its log is the first that differs: {actual} instead of {expected}"


def _listing(found: list[JsonObject]) -> str:
    names = [_text(entry) for entry in found[:_SHOWN]]
    if len(found) > _SHOWN:
        names.append(f"{len(found) - _SHOWN} more")
    return f"the events in its log: {', '.join(names)}" if names else "its log has no events"


def _sequences(registered: Any) -> list[list[JsonObject]]:
    if not isinstance(registered, list):
        return []
    return [
        each
        for each in registered
        if isinstance(each, list)
        and all(isinstance(entry, dict) and "digest" in entry for entry in each)
    ]


def _at(entries: list[JsonObject], place: int) -> str:
    return _text(entries[place] if place < len(entries) else _NONE)


def _text(entry: JsonObject) -> str:
    return f"{entry.get('event', 'event')} {entry['digest']}".strip()


def _entry(event: JsonObject) -> JsonObject:
    said = event["details"]
    words = said.get("string") or said.get("unicode_name") or "/".join(said.get("device_paths", ()))
    return {"digest": event["digest"], "event": f"{event['type']} {words}".strip()}
