# SPDX-License-Identifier: Apache-2.0
"""Attacks on TPM evidence: each is refused, and the operator is told why.

Issue 3, points 4, 5 and 7, and of "It must fail like this": quote replayed, nonce of another
session, attestation key not in the TPM of the endorsement key's certificate, certificate of
an unknown CA, event log edited, PCR selection emptied, init data, image and command line
other than registered, manifest swapped after measurement.

Real software TPMs and their real quotes against a real KBS; the attacker's messages are
made by hand.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _boot import (
    CMDLINE,
    DATASET,
    INIT_DATA,
    OTHER,
    boot,
    event_of,
    manifest,
    reference_values,
    start,
)
from _kbs import InProcessKbs, kbs_in_process
from _rcar import Handshake, claims, denial
from _tpm import LOG_HEADER, Logged, Tpm, TpmCa, b64, records, running_tpm, runtime
from cryptography import x509

from cocos._clock import system_clock
from cocos.crypto import tpm_credential
from cocos.errors import ProcessError
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = "default/key/algo"


def computation(**changes: str) -> Computation:
    return Computation.from_json(json.dumps(manifest(**changes)).encode())


async def session(kbs: InProcessKbs, tpm: Tpm, init_data: str | None = INIT_DATA) -> Handshake:
    return await Handshake.opened(kbs, tpm, tpm.params, init_data=init_data)


async def refused(kbs: InProcessKbs, guest: Handshake, evidence: Any) -> dict[str, Any]:
    """The evidence is refused; return the findings, and check that no key comes out."""
    findings = await denial(kbs, await guest.attest(evidence))
    assert (await guest.get(KEY)).status_code == 401
    return findings


async def test_the_genuine_guest_gets_its_key(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    wanted = computation()
    await tpm.measure(event_of(wanted))
    guest = await session(kbs, tpm)
    answer = await guest.attest(await guest.evidence(cmdline=CMDLINE))
    assert answer.status_code == 200, answer.text
    assert await guest.read(KEY) == SECRET
    submodule = claims(guest.token)
    assert submodule["ear.status"] == "affirming"
    assert "ear.cocos.findings" not in submodule
    shown = submodule["ear.veraison.annotated-evidence"]
    found = shown["tpm"]
    assert found["ak_trusted"] == "manager-ca"
    assert found["debug"] is False
    assert [found[f"pcr{index:02}"] for index in range(24)] == await tpm.pcrs()
    assert shown["init_data"] == found["pcr08"]
    assert shown["init_data_claims"]["aa.toml"] == {"url": "http://10.0.2.2:8080"}
    assert shown["report_data"] == guest.report_data.hex()
    assert found["computation"] == found["computations"][0]
    assert found["computations"] == [
        {
            "manifest_digest": wanted.digest().hex(),
            "algorithm_digest": wanted.algorithm.hash.hex(),
            "dataset_digests": [DATASET],
            "arguments_digest": wanted.arguments_digest().hex(),
            "environment_digest": wanted.environment_digest().hex(),
            "consumers_digest": wanted.consumers_digest().hex(),
            "kbs": list(wanted.kbs()),
        }
    ]
    assert [e["details"]["string"] for e in found["uefi"] if e["index"] == 11][::2] == [
        ".linux",
        ".osrel",
        ".cmdline",
        ".initrd",
    ]


# --- freshness -------------------------------------------------------------------------


async def test_a_replayed_quote(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    first = await session(kbs, tpm)
    recorded = await first.evidence(cmdline=CMDLINE)
    assert (await first.attest(recorded)).status_code == 200
    again = await first.attest(recorded)
    assert again.status_code == 401
    assert "used already" in again.text
    second = await session(kbs, tpm)
    findings = await refused(kbs, second, recorded)
    assert set(findings) == {"tpm.report_data", "tpm.credential"}
    assert findings["tpm.report_data"]["actual"] == first.report_data.hex()
    assert findings["tpm.report_data"]["expected"] == second.report_data.hex()


async def test_another_sessions_nonce(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    victim, thief = await session(kbs, tpm), await session(kbs, tpm)
    evidence = await victim.evidence(cmdline=CMDLINE)
    # The nonce of one session in the other …
    thief.nonce, kept = victim.nonce, thief.nonce
    assert (await thief.attest(evidence)).status_code == 401
    # … and a key of the thief's in the session of the victim.
    thief.nonce = kept
    assert "tpm.report_data" in await refused(kbs, thief, evidence)


@pytest.mark.parametrize("length", [0, 31, 32, 47])
async def test_all_of_the_report_data_is_bound(kbs: InProcessKbs, tpm: Tpm, length: int) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    assert guest.challenge is not None
    secret = await tpm.activate(guest.challenge)
    evidence = await tpm.quote(guest.report_data[:length], secret=secret)
    proof = tpm_credential.proof(secret, guest.report_data)
    evidence |= {"credential": {"proof": b64(proof)}, "cmdline": CMDLINE}
    assert set(await refused(kbs, guest, evidence)) == {"tpm.report_data"}


# --- whose key signs ---------------------------------------------------------------------


async def test_a_key_that_is_not_in_the_certified_tpm(
    kbs: InProcessKbs, tpm: Tpm, other: Tpm
) -> None:
    """The certificate of a genuine TPM, the attestation key of another one."""
    await start(other)
    stolen = {**other.params, "ek_certificate": tpm.params["ek_certificate"]}
    guest = await Handshake.opened(kbs, other, stolen, init_data=INIT_DATA)
    assert guest.challenge is not None
    for machine in (tpm, other):
        with pytest.raises(ProcessError):
            await machine.activate(guest.challenge)
    evidence = await other.quote(guest.report_data, secret=os.urandom(32))
    assert set(await refused(kbs, guest, {**evidence, "cmdline": CMDLINE})) == {"tpm.credential"}


async def test_a_quote_by_another_key_than_announced(
    kbs: InProcessKbs, tpm: Tpm, other: Tpm
) -> None:
    await start(other)
    guest = await Handshake.opened(kbs, other, tpm.params, init_data=INIT_DATA)
    assert guest.challenge is not None
    evidence = await other.quote(guest.report_data, secret=await tpm.activate(guest.challenge))
    findings = await refused(kbs, guest, {**evidence, "cmdline": CMDLINE})
    assert set(findings) == {"tpm.ak"}
    assert findings["tpm.ak"]["expected"] == hashlib.sha256(tpm.ak_spki).hexdigest()
    # The genuine key's name on the other one's signature does not help.
    guest = await Handshake.opened(kbs, other, tpm.params, init_data=INIT_DATA)
    assert guest.challenge is not None
    evidence = await other.quote(guest.report_data, secret=await tpm.activate(guest.challenge))
    evidence |= {"ak_public": b64(tpm.ak_spki), "cmdline": CMDLINE}
    assert set(await refused(kbs, guest, evidence)) == {"tpm.signature"}


async def test_a_certificate_of_an_unknown_ca(kbs: InProcessKbs, ca: TpmCa, tmp_path: Path) -> None:
    fake = TpmCa(tmp_path / "fake")
    async with running_tpm(await fake.manufacture(), tmp_path / "tpm") as tpm:
        findings = await denial(kbs, await Handshake(kbs, tpm, tpm.params).auth())
    assert set(findings) == {"tpm.ek-certificate"}
    finding = findings["tpm.ek-certificate"]
    own, other = (
        x509.load_pem_x509_certificate(each.certificate.read_bytes()).subject.rfc4514_string()
        for each in (fake, ca)
    )
    assert (finding["actual"], finding["expected"]) == (own, other)


async def test_no_ca_is_trusted_unless_configured(tpm: Tpm, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    async with kbs_in_process(folder, allow_sample=False) as strict:
        strict.now = system_clock()
        findings = await denial(strict, await Handshake(strict, tpm, tpm.params).auth())
    assert "--tpm-ek-ca" in findings["tpm.ek-certificate"]["expected"]


async def test_a_key_that_signs_anything(kbs: InProcessKbs, tpm: Tpm) -> None:
    """An unrestricted key of a genuine TPM would sign a quote that its host made up."""
    free = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"
    await tpm.tool("createprimary", "-C", "e", "-G", "rsa2048", "-a", free, "-c", "free.ctx", "-Q")
    await tpm.tool("readpublic", "-c", "free.ctx", "-o", "free.pub", "-Q")
    await tpm.tool("flushcontext", "-t")
    params = {**tpm.params, "ak_public": b64(tpm.read("free.pub"))}
    findings = await denial(kbs, await Handshake(kbs, tpm, params).auth())
    assert findings["tpm.ak.attributes"]["expected"] == "also RESTRICTED"


async def test_evidence_without_proof_of_a_tpm(kbs: InProcessKbs, tpm: Tpm) -> None:
    """As the public guest components send it: only where an operator vouches for the key."""
    await start(tpm)
    guest = await Handshake.opened(kbs, tpm, None, init_data=INIT_DATA)
    assert guest.challenge is None
    findings = await refused(kbs, guest, await guest.evidence(cmdline=CMDLINE))
    assert set(findings) == {"tpm.ak"}
    async with kbs.admin() as admin:
        await admin.register_reference_values({"trusted_ak": [b64(tpm.ak_spki)]})
    for length in (48, 32):
        guest = await Handshake.opened(kbs, tpm, None, init_data=INIT_DATA)
        evidence = await tpm.quote(guest.report_data[:length])
        answer = await guest.attest({**evidence, "cmdline": CMDLINE})
        assert answer.status_code == 200, answer.text
        assert await guest.read(KEY) == SECRET
        shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
        assert shown["ak_trusted"] == "registered"
    guest = await Handshake.opened(kbs, tpm, None, init_data=INIT_DATA)
    evidence = await tpm.quote(guest.report_data[:31])
    assert set(await refused(kbs, guest, evidence)) == {"tpm.report_data"}


@pytest.mark.parametrize("proof", [None, {"proof": ""}, {"proof": "!"}, {"proof": b64(bytes(32))}])
async def test_no_answer_to_the_challenge(
    kbs: InProcessKbs, tpm: Tpm, proof: dict[str, str] | None
) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    evidence = {**await tpm.quote(guest.report_data), "credential": proof, "cmdline": CMDLINE}
    assert set(await refused(kbs, guest, evidence)) == {"tpm.credential"}


# --- which PCRs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection",
    [
        "sha256:none",
        "sha256:16,23",
        "sha256:" + ",".join(str(pcr) for pcr in range(24) if pcr != 8),
        "sha256:0,1,2,3,4,5,6,7",
        "sha384:" + ",".join(map(str, range(24))),
    ],
)
async def test_a_quote_of_other_pcrs(kbs: InProcessKbs, tpm: Tpm, selection: str) -> None:
    """The values listed say nothing about which PCRs were quoted."""
    await start(tpm)
    guest = await session(kbs, tpm)
    assert guest.challenge is not None
    secret = await tpm.activate(guest.challenge)
    evidence = await tpm.quote(guest.report_data, selection=selection, secret=secret)
    findings = await refused(kbs, guest, {**evidence, "cmdline": CMDLINE})
    assert findings["tpm.selection"]["expected"] == "sha256:ffffff"
    assert findings["tpm.selection"]["actual"] != "sha256:ffffff"


async def test_other_values_than_quoted(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm, *boot(kernel=b"another kernel"))
    guest = await session(kbs, tpm)
    evidence = await guest.evidence(cmdline=CMDLINE)
    evidence["tpm_quote"]["pcrs"][11] = reference_values(boot())["tpm_pcr11"][0]
    assert set(await refused(kbs, guest, evidence)) >= {"tpm.pcr-digest", "tpm.pcr11"}
    for count in (0, 23, 25):
        guest = await session(kbs, tpm)
        evidence = await guest.evidence(cmdline=CMDLINE)
        evidence["tpm_quote"]["pcrs"] = (evidence["tpm_quote"]["pcrs"] * 2)[:count]
        assert set(await refused(kbs, guest, evidence)) == {"tpm.evidence"}


# --- event logs --------------------------------------------------------------------------


def edits() -> Iterator[Any]:
    events = boot()
    place = next(i for i, e in enumerate(events) if e.data == b".cmdline\0")
    action = next(i for i, e in enumerate(events) if e.data.startswith(b"Calling"))
    forged = hashlib.sha256(b"root=/dev/vda").digest()

    def changed(number: int, **changes: Any) -> list[Logged]:
        return [replace(e, **changes) if i == number else e for i, e in enumerate(events)]

    yield pytest.param(changed(place + 1, digest=forged), {"tpm.pcr11"}, id="digest changed")
    yield pytest.param(events[:place] + events[place + 2 :], {"tpm.pcr11"}, id="events left out")
    yield pytest.param([*events, Logged(12, 13, b"x")], {"tpm.pcr12"}, id="event made up")
    yield pytest.param(
        changed(action, data=b"Nothing", digest=events[action].extended),
        {f"tpm.event-log.{action}"},
        id="text changed",
    )
    yield pytest.param([events[1], events[0], *events[2:]], None, id="order across PCRs")
    yield pytest.param(
        [*events[:action], events[action + 1], events[action], *events[action + 2 :]],
        {"tpm.pcr04"},
        id="order within a PCR",
    )


@pytest.mark.parametrize(("log", "expected"), list(edits()))
async def test_an_edited_event_log(
    kbs: InProcessKbs, tpm: Tpm, log: list[Logged], expected: set[str] | None
) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    evidence = await guest.evidence(event_log=b64(LOG_HEADER + records(log)), cmdline=CMDLINE)
    if expected is None:
        assert (await guest.attest(evidence)).status_code == 200
        return
    findings = await refused(kbs, guest, evidence)
    assert set(findings) - {"tpm.cmdline"} == expected


async def test_the_finding_names_what_was_made_up(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    made_up = [*boot(), Logged(11, 13, b"made up")]
    evidence = await guest.evidence(event_log=b64(LOG_HEADER + records(made_up)), cmdline=CMDLINE)
    finding = (await refused(kbs, guest, evidence))["tpm.pcr11"]
    assert "EV_IPL made up" in finding["problem"]
    assert "never measured" in finding["problem"]
    assert finding["actual"] == (await tpm.pcrs())[11]


async def test_without_the_firmwares_log_nothing_is_known_of_debugging(
    kbs: InProcessKbs, tpm: Tpm
) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    evidence = await guest.evidence(cmdline=CMDLINE)
    del evidence["event_log"]
    assert (await guest.attest(evidence)).status_code == 200
    assert "tpm.debug" in "".join(await denial(kbs, await guest.get(KEY)))


# --- computations ------------------------------------------------------------------------


async def test_a_manifest_swapped_after_measurement(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    measured, shown = computation(algorithm=OTHER), computation()
    await tpm.measure(event_of(measured))
    guest = await session(kbs, tpm)
    # The log shows the manifest that the owner expects …
    evidence = await guest.evidence(aael=b64(event_of(shown).record), cmdline=CMDLINE)
    findings = await refused(kbs, guest, evidence)
    assert set(findings) == {"tpm.pcr14"}
    # … with the digest of the one that was measured …
    guest = await session(kbs, tpm)
    lie = replace(event_of(shown), digest=event_of(measured).extended)
    evidence = await guest.evidence(aael=b64(lie.record), cmdline=CMDLINE)
    findings = await refused(kbs, guest, evidence)
    (finding,) = findings.values()
    assert "is not what was measured" in finding["problem"]
    # … and with no log at all.
    for nothing in ({"aael": ""}, {"aael": None}):
        guest = await session(kbs, tpm)
        evidence = await guest.evidence(cmdline=CMDLINE) | nothing
        assert set(await refused(kbs, guest, evidence)) == {"tpm.pcr14"}


async def test_every_computation_since_boot_is_listed(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    first, second = computation(), computation(algorithm=OTHER)
    await tpm.measure(event_of(first), runtime("other", "thing", "x"), event_of(second))
    guest = await session(kbs, tpm)
    assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
    shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
    listed = [each["manifest_digest"] for each in shown["computations"]]
    assert listed == [first.digest().hex(), second.digest().hex()]
    assert "computation" not in shown
    assert shown["runtime_events"] == [
        {"index": 14, "domain": "other", "operation": "thing", "content": "x"}
    ]


async def test_a_computation_in_another_register(kbs: InProcessKbs, tpm: Tpm) -> None:
    """Software can reset 23, and nobody but the agent of this image looks after 15."""
    await start(tpm)
    event = event_of(computation())
    await tpm.measure(replace(event, pcr=23), replace(event, pcr=15))
    guest = await session(kbs, tpm)
    assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
    shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
    assert shown["computations"] == []
    assert [each["index"] for each in shown["runtime_events"]] == [15]


# --- init data, image, command line ------------------------------------------------------


async def test_other_init_data_than_measured(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    guest = await session(kbs, tpm, INIT_DATA.replace("10.0.2.2", "6.6.6.6"))
    findings = await refused(kbs, guest, await guest.evidence(cmdline=CMDLINE))
    assert set(findings) == {"tpm.pcr08"}
    assert findings["tpm.pcr08"]["actual"] == (await tpm.pcrs())[8]
    guest = await session(kbs, tpm, INIT_DATA.replace("sha256", "sha384"))
    findings = await refused(kbs, guest, await guest.evidence(cmdline=CMDLINE))
    assert set(findings) == {"init_data.algorithm"}


async def test_init_data_that_is_not_shown(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    guest = await session(kbs, tpm, None)
    assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
    assert "cpu0.init_data" in await denial(kbs, await guest.get(KEY))


async def test_pinned_init_data(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    for pinned, status in (([OTHER], 403), ([OTHER, (await tpm.pcrs())[8]], 200), ([], 403)):
        async with kbs.admin() as admin:
            await admin.register_reference_values({"tpm_pcr08": pinned})
        guest = await session(kbs, tpm)
        await guest.attest(await guest.evidence(cmdline=CMDLINE))
        answer = await guest.get(KEY)
        assert (answer.status_code == 200) == (status == 200), answer.text
        if status != 200:
            assert "cpu0.tpm.pcr08" in await denial(kbs, answer)


@pytest.mark.parametrize(
    ("events", "pcr", "said"),
    [
        (boot(application=b"another"), "pcr04", "event 3 in its log is the first that differs"),
        (boot(kernel=b"another"), "pcr11", "event 2 in its log is the first that differs"),
        (boot(cmdline="init=/bin/sh"), "pcr11", "event 6 in its log is the first that differs"),
        ([*boot(), Logged(12, 13, b"init=/bin/sh")], "pcr12", "instead of no event"),
    ],
    ids=["loader", "kernel", "command line", "override"],
)
async def test_another_image(
    kbs: InProcessKbs, tpm: Tpm, events: list[Logged], pcr: str, said: str
) -> None:
    await start(tpm, *events)
    guest = await session(kbs, tpm)
    cmdline = "init=/bin/sh" if said.startswith("event 6") else CMDLINE
    assert (await guest.attest(await guest.evidence(cmdline=cmdline))).status_code == 200
    findings = await denial(kbs, await guest.get(KEY))
    assert [check for check in findings if check.startswith("cpu0.tpm.pcr")] == [f"cpu0.tpm.{pcr}"]
    finding = findings[f"cpu0.tpm.{pcr}"]
    assert finding["actual"] == (await tpm.pcrs())[int(pcr[3:])]
    assert finding["expected"] == reference_values(boot())[f"tpm_{pcr}"][0]
    assert said in finding["problem"]
    # Those who hold the token see the same.
    assert claims(guest.token)["ear.cocos.findings"]


async def test_another_command_line_than_measured(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm, *boot(cmdline=f"{CMDLINE} cocos.debug"))
    guest = await session(kbs, tpm)
    assert set(await refused(kbs, guest, await guest.evidence(cmdline=CMDLINE))) == {"tpm.cmdline"}


@pytest.mark.parametrize("word", ["cocos.debug", "cocos.debug=1"])
async def test_a_debug_image_although_its_values_are_registered(
    kbs: InProcessKbs, tpm: Tpm, word: str
) -> None:
    events = boot(cmdline=f"{CMDLINE} {word}")
    async with kbs.admin() as admin:
        await admin.register_reference_values(reference_values(events))
    await start(tpm, *events)
    guest = await session(kbs, tpm)
    evidence = await guest.evidence(cmdline=f"{CMDLINE} {word}")
    assert (await guest.attest(evidence)).status_code == 200
    findings = await denial(kbs, await guest.get(KEY))
    assert findings["cpu0.tpm.debug"]["actual"] == "true"
    assert not [check for check in findings if "pcr" in check]


async def test_no_reference_values(ca: TpmCa, tpm: Tpm, tmp_path: Path) -> None:
    await start(tpm)
    folder = tmp_path / "empty"
    folder.mkdir()
    async with kbs_in_process(folder, allow_sample=False, tpm_ek_ca=[ca.certificate]) as empty:
        empty.now = system_clock()
        guest = await session(empty, tpm)
        assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
        findings = await denial(empty, await guest.get(KEY))
    for pcr in ("pcr04", "pcr11", "pcr12"):
        assert findings[f"cpu0.tpm.{pcr}"]["expected"] == "nothing is registered"


async def test_bits_of_the_quote_changed(kbs: InProcessKbs, tpm: Tpm) -> None:
    await start(tpm)
    guest = await session(kbs, tpm)
    good = await guest.evidence(cmdline=CMDLINE)
    for member, place in (("signature", -1), ("message", -1), ("message", 50)):
        raw = bytearray(base64.b64decode(good["tpm_quote"][member]))
        raw[place] ^= 1
        bad = {**good, "tpm_quote": {**good["tpm_quote"], member: b64(bytes(raw))}}
        guest = await session(kbs, tpm)
        assert "tpm.signature" in await refused(kbs, guest, bad)
