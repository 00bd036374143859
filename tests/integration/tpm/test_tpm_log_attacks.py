# SPDX-License-Identifier: Apache-2.0
"""Attacks on what a log says that its digests do not: issue 3, point 5, "event log edited".

A PCR proves digests and their order. Types, texts and events that are never extended are
anybody's words; whoever sits between guest and KBS can change them without a PCR noticing.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from _boot import (
    CMDLINE,
    INIT_DATA,
    OTHER,
    boot,
    event_of,
    manifest,
    measured,
    reference_values,
    start,
)
from _kbs import InProcessKbs
from _policies import agreed
from _rcar import Handshake, claims, denial
from _tpm import EV_EVENT_TAG, EV_IPL, LOG_HEADER, Logged, Tpm, b64, records, runtime

from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

KEY = "default/key/algo"
EV_NO_ACTION = 3


def computation(**changes: str) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


WANTED, SWAPPED = computation(), computation(algorithm=OTHER)


async def session(kbs: InProcessKbs, tpm: Tpm) -> Handshake:
    return await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)


async def refused(kbs: InProcessKbs, guest: Handshake, evidence: Any) -> dict[str, Any]:
    """The evidence is refused; return the findings, and check that no key comes out."""
    findings = await denial(kbs, await guest.attest(evidence))
    assert (await guest.get(KEY)).status_code == 401
    return findings


def retyped(event: Logged) -> Logged:
    return replace(event, type=EV_IPL)


def without_magic(event: Logged) -> Logged:
    return replace(event, data=b"LEAX" + event.data[4:], digest=event.extended)


def renamed(event: Logged) -> Logged:
    other = runtime("kernel", "thing", "x")
    return replace(event, data=other.data, digest=event.extended)


def without_text(event: Logged) -> Logged:
    return replace(event, data=b"", digest=event.extended)


@pytest.mark.parametrize("log", ["aael", "event_log"])
async def test_a_computation_cannot_be_hidden(kbs: InProcessKbs, tpm: Tpm, log: str) -> None:
    """A VM that has run somebody else's program must not pass for a fresh one."""
    await start(tpm)
    hidden, shown = event_of(SWAPPED), event_of(WANTED)
    await tpm.measure(hidden, shown)
    async with kbs.admin() as admin:
        await admin.set_resource_policy(agreed("Only this computation", measured(WANTED)))
    for disguise in (retyped, without_magic, renamed, without_text):
        guest = await session(kbs, tpm)
        evidence = await guest.evidence(cmdline=CMDLINE)
        if log == "aael":
            evidence["aael"] = b64(records([disguise(hidden), shown]))
        else:
            evidence["event_log"] = b64(LOG_HEADER + records([*boot(), disguise(hidden)]))
            evidence["aael"] = b64(shown.record)
        (check, finding) = (await refused(kbs, guest, evidence)).popitem()
        assert check.startswith("tpm.event-log.")
        assert "PCR 14" in finding["problem"] or "is not what was measured" in finding["problem"]


async def test_a_command_line_that_was_never_measured(kbs: InProcessKbs, tpm: Tpm) -> None:
    """Events without action are extended nowhere: they would deny that an image is a debug one."""
    debug = f"{CMDLINE} cocos.debug"
    events = boot(cmdline=debug)
    async with kbs.admin() as admin:
        await admin.register_reference_values(reference_values(events))
    await start(tpm, *events)
    label = hashlib.sha256(b".cmdline\0").digest()
    lie = [
        Logged(11, EV_NO_ACTION, b"", label),
        Logged(11, EV_NO_ACTION, b"", hashlib.sha256(CMDLINE.encode()).digest()),
    ]
    guest = await session(kbs, tpm)
    log = b64(LOG_HEADER + records([*events, *lie]))
    findings = await refused(kbs, guest, await guest.evidence(event_log=log, cmdline=CMDLINE))
    assert findings["tpm.cmdline"]["actual"] == CMDLINE
    # The genuine one is believed, with or without such events around it.
    guest = await session(kbs, tpm)
    answer = await guest.attest(await guest.evidence(event_log=log, cmdline=debug))
    assert answer.status_code == 200
    assert claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]["debug"] is True


async def test_events_that_no_pcr_vouches_for_are_no_claims(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    nobody = {8, 10, 16, 23}
    events = [runtime("owner", "agreed", "to-everything", pcr) for pcr in nobody]
    kinds = (EV_EVENT_TAG, EV_IPL, EV_NO_ACTION)
    made_up = [replace(event, type=kind) for event in events for kind in kinds]
    guest = await session(kbs, tpm)
    log = b64(LOG_HEADER + records([*boot(), *made_up]))
    answer = await guest.attest(await guest.evidence(event_log=log, cmdline=CMDLINE))
    assert answer.status_code == 200, answer.text
    shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
    assert "to-everything" not in json.dumps(shown)
    assert not nobody & {event["index"] for event in shown["uefi"]}


async def test_the_firmwares_events_stay_in_its_log(kbs: InProcessKbs, tpm: Tpm) -> None:
    """In the agent's log they would be replayed, and missing from the claim ``uefi``."""
    await start(tpm)
    guest = await session(kbs, tpm)
    *first, last = boot()
    evidence = await guest.evidence(
        event_log=b64(LOG_HEADER + records(first)), aael=b64(last.record), cmdline=CMDLINE
    )
    (finding,) = (await refused(kbs, guest, evidence)).values()
    assert "runtime event" in finding["problem"]


@pytest.mark.timeout(90)  # it took minutes, and nobody else was answered
async def test_a_long_log_that_leads_nowhere_is_refused_in_a_moment(
    kbs: InProcessKbs, tpm: Tpm
) -> None:
    """Looking for the event to blame must not cost the square of what a stranger sends."""
    await start(tpm)
    guest = await session(kbs, tpm)
    many = records([Logged(0, EV_IPL, b"")] * 4096)
    evidence = await guest.evidence(event_log=b64(LOG_HEADER + many), aael=b64(many))
    assert "tpm.pcr00" in await refused(kbs, guest, evidence)
