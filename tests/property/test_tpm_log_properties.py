# SPDX-License-Identifier: Apache-2.0
"""Whatever somebody changes in the logs that a quote comes with: refused, or without effect.

Issue 3, "event log edited". Digests and their order are what a PCR vouches for; claims that
policies decide by must not depend on anything else.
"""

import asyncio
import base64
import hashlib
import operator
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from _boot import CMDLINE, boot
from _tpm import (
    EV_EFI_ACTION,
    EV_EVENT_TAG,
    EV_IPL,
    EV_SEPARATOR,
    LOG_HEADER,
    Logged,
    records,
    runtime,
)
from _verified import verified
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos._clock import system_clock
from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError
from cocos.evidence.eventlog import parse_records, replay
from cocos.verifiers import Expected
from cocos.verifiers.tpm import Authorities, TpmVerifier
from cocos.wire.manifest.event import ComputationEvent

KEY = rsa.generate_private_key(65537, 2048)
SPKI = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
BOUND = ReportData(hashlib.sha384(b"session").digest())
FIRMWARE = boot(f"{CMDLINE} cocos.debug")


def computation(digit: str) -> Logged:
    digest = digit * 64
    event = ComputationEvent(digest, digest, digest, (digest,), digest, ("",), digest)
    return runtime(*event.measured())


AGENT = [computation("a"), runtime("other", "thing", "x"), computation("b")]
EVENTS = parse_records(records([*FIRMWARE, *AGENT]))
PCRS = [replay(EVENTS, index) for index in range(24)]
VERIFIER = TpmVerifier(Authorities(), clock=system_clock)
EXPECTED = Expected(BOUND, reference_values={"trusted_ak": [hashlib.sha256(SPKI).hexdigest()]})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def quote() -> dict[str, Any]:
    message = struct.pack(">IHHH", 0xFF544347, 0x8018, 0, len(BOUND)) + BOUND + bytes(25)
    message += struct.pack(">IHB", 1, 0xB, 3) + b"\xff\xff\xff"
    message += struct.pack(">H", 32) + hashlib.sha256(b"".join(PCRS)).digest()
    signature = KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return {
        "signature": b64(struct.pack(">HHH", 0x14, 0xB, 256) + signature),
        "message": b64(message),
        "pcrs": [value.hex() for value in PCRS],
    }


QUOTE = quote()


def decided_by(firmware: list[Logged], agent: list[Logged], cmdline: str) -> JsonObject:
    """The claims that policies decide by, or EvidenceError."""
    evidence = {
        "tpm_quote": QUOTE,
        "ak_public": b64(SPKI),
        "event_log": b64(LOG_HEADER + records(firmware)),
        "aael": b64(records(agent)),
        "cmdline": cmdline,
    }
    claims = asyncio.run(verified(VERIFIER, evidence, EXPECTED))
    names = ("cmdline", "debug", "computation", "computations", "runtime_events")
    # The order of events of different PCRs is nobody's word; runtime events fit into both logs.
    shown = [(event["index"], event["digest"]) for event in claims["uefi"]]
    measured = sorted((each for each in shown if each[0] != 14), key=operator.itemgetter(0))
    return {**{name: claims.get(name) for name in names}, "uefi": measured}


DEBUG = f"{CMDLINE} cocos.debug"
GENUINE = decided_by(FIRMWARE, AGENT, DEBUG)

Logs = tuple[list[Logged], list[Logged]]
NO_ACTION = 3
OVER_TEXT = {EV_SEPARATOR, EV_EFI_ACTION, EV_EVENT_TAG}
MADE_UP = [computation("c"), runtime("other", "thing", "y"), runtime("own", "thing", "x", 7)]
TYPES = [NO_ACTION, 4, 6, 0xD, 0x80000007, 0x80000003, 0x80000001]
CMDLINES = (CMDLINE, f"{CMDLINE} cocos.debug=0", f"{CMDLINE} cocos.debugger", "")


@st.composite
def changes(draw: st.DrawFn) -> Callable[[Logs], None]:
    """One more event, one less, or one that is changed where it stands or in the other log."""
    which = draw(st.integers(0, 1))
    likely = (FIRMWARE, [*AGENT, *MADE_UP])[which]
    kind = draw(st.sampled_from(["add", "drop", "change", "move"]))
    place, more = draw(st.integers(0, len(likely))), draw(st.sampled_from(likely))
    texts = st.sampled_from([event.data for event in likely]) | st.binary(max_size=40)
    others: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {}, optional={"type": st.sampled_from(TYPES), "pcr": st.integers(0, 23), "data": texts}
        )
    )
    if draw(st.booleans()):
        # Else what was measured stays: without that the replay would find most changes.
        others["digest"] = draw(st.just(None) | st.sampled_from([each.extended for each in likely]))

    def apply(logs: Logs) -> None:
        log = logs[which]
        if kind == "add":
            log.insert(place, replace(more, **{"digest": more.extended, **others}))
        elif log:
            event = log.pop(place % len(log))
            if kind != "drop":
                changed = replace(event, **{"digest": event.extended, **others})
                (logs[1 - which] if kind == "move" else log).insert(place, changed)

    return apply


@settings(max_examples=300, deadline=None)
@given(st.lists(changes(), min_size=1, max_size=2), st.sampled_from([DEBUG, *CMDLINES]))
def test_changed_logs_are_refused_or_change_nothing(
    edits: list[Callable[[Logs], None]], cmdline: str
) -> None:
    logs: Logs = (list(FIRMWARE), list(AGENT))
    for edit in edits:
        edit(logs)
    refused_or_the_same(*logs, cmdline)


def refused_or_the_same(firmware: list[Logged], agent: list[Logged], cmdline: str = DEBUG) -> None:
    try:
        claims = decided_by(firmware, agent, cmdline)
    except EvidenceError as error:
        assert error.findings  # noqa: PT017 - most are refused, some are harmless
    else:
        assert claims == GENUINE or missing(claims)


def missing(claims: JsonObject) -> bool:
    """A log without the command line's section vouches for none: policies then deny."""
    without = {name: value for name, value in GENUINE.items() if name not in {"cmdline", "debug"}}
    return claims == {**without, "cmdline": None, "debug": None}


@pytest.mark.parametrize("number", range(len(AGENT)))
def test_every_single_change_of_what_the_agent_measured(number: int) -> None:
    event = replace(AGENT[number], digest=AGENT[number].extended)
    before, after = AGENT[:number], AGENT[number + 1 :]
    others = [replace(event, data=each.data) for each in (*AGENT, *MADE_UP)]
    others += [replace(event, pcr=pcr) for pcr in range(24)]
    disguises = [replace(event, type=type_) for type_ in TYPES]
    for other in (*others, *disguises):
        refused_or_the_same(FIRMWARE, [*before, other, *after])
    if not before:  # the firmware's log comes first
        for disguise in disguises:
            refused_or_the_same([*FIRMWARE, disguise], after)


@pytest.mark.parametrize("event", [*AGENT, *MADE_UP])
def test_every_pcr_that_an_event_could_be_added_to(event: Logged) -> None:
    for pcr in range(24):
        added = replace(event, pcr=pcr)
        for digest in (None, bytes(32)):
            refused_or_the_same(FIRMWARE, [*AGENT, replace(added, digest=digest)])
            refused_or_the_same([*FIRMWARE, replace(added, digest=digest)], AGENT)


def test_what_was_measured_is_claimed() -> None:
    """Refusing everything would be no defence: the tests here compare with this."""
    claims = decided_by(FIRMWARE, AGENT, DEBUG)
    assert claims["cmdline"] == DEBUG
    assert claims["debug"] is True
    assert [each["manifest_digest"] for each in claims["computations"]] == ["a" * 64, "b" * 64]
    other = {"index": 14, "domain": "other", "operation": "thing", "content": "x"}
    assert claims["runtime_events"] == [other]
    in_order = sorted(FIRMWARE, key=operator.attrgetter("pcr"))
    assert claims["uefi"] == [(event.pcr, event.extended.hex()) for event in in_order]


@pytest.mark.parametrize("cmdline", CMDLINES)
def test_another_command_line_is_refused(cmdline: str) -> None:
    with pytest.raises(EvidenceError) as refused:
        decided_by(FIRMWARE, AGENT, cmdline)
    assert [each.check for each in refused.value.findings] == ["tpm.cmdline"]


UNVOUCHED = st.sampled_from([8, 10, *range(16, 24)])
"""PCRs that no log explains, or that anybody can reset."""
NOISE = st.builds(Logged, st.integers(0, 40), st.just(NO_ACTION), st.binary(max_size=40)) | (
    st.builds(Logged, UNVOUCHED, st.just(EV_IPL), st.binary(max_size=40))
)


@settings(max_examples=100, deadline=None)
@given(
    st.permutations(range(24)),
    st.lists(st.tuples(st.integers(0, len(FIRMWARE)), NOISE), max_size=4),
    st.dictionaries(st.integers(0, len(FIRMWARE) - 1), st.binary(max_size=40), max_size=4),
)
def test_what_no_pcr_vouches_for_changes_nothing(
    order: list[int], noise: list[tuple[int, Logged]], texts: dict[int, bytes]
) -> None:
    """Order between PCRs, events that extend none that counts, texts that are no digest's."""
    firmware = [
        event if event.type in OVER_TEXT else replace(event, digest=event.extended, data=text)
        for event, text in ((each, texts.get(at, each.data)) for at, each in enumerate(FIRMWARE))
    ]
    firmware.sort(key=lambda event: order[event.pcr])
    for place, event in noise:
        firmware.insert(place, event)
    assert decided_by(firmware, AGENT, DEBUG) == GENUINE
