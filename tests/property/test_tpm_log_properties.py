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

from _boot import CMDLINE, boot
from _tpm import LOG_HEADER, Logged, records, runtime
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
    names = ("cmdline", "debug", "computations", "runtime_events")
    # The order of events of different PCRs is nobody's word; runtime events fit into both logs.
    shown = [(event["index"], event["digest"]) for event in claims["uefi"]]
    measured = sorted((each for each in shown if each[0] != 14), key=operator.itemgetter(0))
    return {**{name: claims.get(name) for name in names}, "uefi": measured}


DEBUG = f"{CMDLINE} cocos.debug"
GENUINE = decided_by(FIRMWARE, AGENT, DEBUG)

Logs = tuple[list[Logged], list[Logged]]
DATA = st.sampled_from([event.data for event in (*FIRMWARE, *AGENT)]) | st.binary(max_size=40)
DIGESTS = st.sampled_from([event.extended for event in (*FIRMWARE, *AGENT)]) | st.just(
    hashlib.sha256(CMDLINE.encode()).digest()
)
TYPES = st.sampled_from([3, 4, 6, 0xD, 0x80000007, 0x80000003, 0x80000001])


@st.composite
def changes(draw: st.DrawFn) -> Callable[[Logs], None]:
    """A change of one event, of its place, or one more event."""
    which, place = draw(st.integers(0, 1)), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["type", "data", "pcr", "add", "drop", "move"]))
    type_, data, digest = draw(TYPES), draw(DATA), draw(DIGESTS)
    pcr = draw(st.integers(0, 23))

    def apply(logs: Logs) -> None:
        log = logs[which]
        at = min(place, len(log) - 1)
        if kind == "add":
            log.insert(min(place, len(log)), Logged(pcr, type_, data, digest))
        elif not log:
            return
        elif kind == "drop":
            del log[at]
        elif kind == "move":
            logs[1 - which].append(log.pop(at))
        else:
            event = log[at]
            # Its digest stays: without that the change would be found by the replay.
            changed: dict[str, Any] = {kind: {"type": type_, "data": data, "pcr": pcr}[kind]}
            log[at] = replace(event, digest=event.extended, **changed)

    return apply


@settings(max_examples=300, deadline=None)
@given(st.lists(changes(), max_size=4), st.sampled_from([DEBUG, CMDLINE, ""]))
def test_changed_logs_are_refused_or_change_nothing(
    edits: list[Callable[[Logs], None]], cmdline: str
) -> None:
    logs: Logs = (list(FIRMWARE), list(AGENT))
    for edit in edits:
        edit(logs)
    try:
        claims = decided_by(*logs, cmdline)
    except EvidenceError as error:
        assert error.findings  # noqa: PT017 - most are refused, some are harmless
    else:
        assert claims == GENUINE or missing(claims)


def missing(claims: JsonObject) -> bool:
    """A log without the command line's section vouches for none: policies then deny."""
    without = {name: value for name, value in GENUINE.items() if name not in {"cmdline", "debug"}}
    return claims == {**without, "cmdline": None, "debug": None}
