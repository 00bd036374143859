# SPDX-License-Identifier: Apache-2.0
"""A guest's session from its challenge to its end, and what the operator learns of it."""

import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from _generations import Guest, key
from _kbs import URL, InProcessKbs, kbs_in_process
from _software_tpm import SoftwareCa, SoftwareTpm

from cocos.crypto import base64url, detached, jwt
from cocos.crypto.tee_key import EC_P256, RSA, RSA_EARLY, TeeKeyPair
from cocos.errors import AuthenticationError, FormatError
from cocos.kbs.proofs import Proofs, Released
from cocos.stores.base import Namespace
from cocos.wire import audit
from cocos.wire.kbs import proof
from cocos.wire.kbs.protocol import ResourcePath, Response, report_data

PATH = "default/key/1"
SECRET = b"\x00KEK\xff" + bytes(27)
TPM = SoftwareTpm()


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path, max_open_sessions=1) as made:
        async with made.admin() as admin:
            await admin.set_resource(ResourcePath.parse(PATH), SECRET)
        yield made


async def metric(kbs: InProcessKbs, name: str) -> float:
    async with httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"kbs_{name}_total"))


# --- its challenge ----------------------------------------------------------------------


@pytest.fixture
async def of_tpms(tmp_path: Path) -> AsyncIterator[tuple[InProcessKbs, Guest, bytes]]:
    """A key broker, a guest whose TPM it has challenged, and the secret of the challenge."""
    ca = SoftwareCa(dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC))
    file = tmp_path / "ca.pem"
    file.write_bytes(ca.pem())
    async with kbs_in_process(tmp_path / "kbs", tpm_ek_ca=[file]) as kbs:
        guest = Guest(kbs, tee="tpm")
        answer = await guest.auth(params={"tpm": TPM.params(ca.certificate(TPM.ek))})
        yield kbs, guest, TPM.activate(answer.json()["extra-params"]["tpm"])


def answer_of(guest: Guest, secret: bytes) -> dict[str, Any]:
    pair = {"nonce": guest.nonce, "tee-pubkey": guest.key.public_jwk()}
    evidence = TPM.quote(report_data({**pair, "additional-evidence": ""}), secret=secret)
    shown = {"primary_evidence": evidence, "additional_evidence": ""}
    return {"runtime-data": pair, "tee-evidence": shown}


async def test_a_challenge_is_answered_in_its_session(
    of_tpms: tuple[InProcessKbs, Guest, bytes],
) -> None:
    kbs, guest, secret = of_tpms
    answer = await guest.attest(answer_of(guest, secret))
    assert answer.status_code == 200, answer.text
    claims = guest.claims()["cpu0"]["ear.veraison.annotated-evidence"]["tpm"]
    assert claims["ak_trusted"] == "manager-ca"
    assert await metric(kbs, "attestation_failures") == 0


async def test_another_session_does_not_answer_it(
    of_tpms: tuple[InProcessKbs, Guest, bytes],
) -> None:
    """A session without a challenge of its own, of a guest that announced nothing."""
    kbs, _, secret = of_tpms
    other = Guest(kbs, tee="tpm")
    await other.auth()
    assert (await other.attest(answer_of(other, secret))).status_code == 401
    assert await metric(kbs, "attestation_failures") == 1


async def test_a_refusal_before_the_challenge_says_of_what(kbs: InProcessKbs) -> None:
    assert (await Guest(kbs, tee="se").auth()).status_code == 401
    async with kbs.admin() as admin:
        page = await admin.audit_page(0)
    denied = [audit.decode(record) for record in page.records][-1]
    assert (denied["event"], denied["tee"]) == ("denied", "se")


# --- afterwards -------------------------------------------------------------------------


async def test_who_has_attested_gives_way_to_nobody(kbs: InProcessKbs) -> None:
    """Handshakes, however many, take the place of handshakes only."""
    attested = Guest(kbs)
    await attested.handshake()
    for _ in range(3):
        assert (await Guest(kbs).auth()).status_code == 200
    assert attested.key.decrypt((await attested.get(PATH)).json()) == SECRET


async def test_a_session_that_does_not_say_of_which_tee_it_is(kbs: InProcessKbs) -> None:
    """The program of before wrote such; they hold until they expire."""
    guest = Guest(kbs)
    await guest.handshake()
    assert kbs.store is not None
    stored = await kbs.store.get(Namespace.SESSION, guest.cookie)
    assert stored is not None
    session = json.loads(stored)
    del session["tee"]
    expires = dt.datetime.fromisoformat(session["expires"])
    content = json.dumps(session).encode()
    await kbs.store.put(Namespace.SESSION, guest.cookie, content, expires=expires)
    assert guest.key.decrypt((await guest.get(PATH)).json()) == SECRET


@pytest.mark.parametrize(
    ("version", "tee_key", "warned"),
    [
        ("0.4.0", key(EC_P256), False),
        ("0.4.0", key(RSA), False),
        ("0.4.0", key(RSA_EARLY), True),
        ("0.1.1", key(RSA_EARLY), True),
    ],
)
async def test_the_operators_log_names_what_is_weak(
    kbs: InProcessKbs, version: str, tee_key: TeeKeyPair, *, warned: bool
) -> None:
    with structlog.testing.capture_logs() as lines:
        await Guest(kbs, version, tee_key).handshake()
    weak = [line["log_level"] for line in lines if line["event"] == "kbs.weak-key"]
    assert weak == ["warning"] * warned


# --- its answer -------------------------------------------------------------------------


async def test_an_answer_is_proved_to_who_asks_for_it(kbs: InProcessKbs) -> None:
    guest = Guest(kbs)
    await guest.handshake()
    kid = jwt.header_of(guest.token)["kid"]
    nonce = base64url.encode(bytes(range(proof.NONCE_BYTES)))
    answer = await guest.get(PATH, headers={proof.NONCE_HEADER: nonce})
    shown = answer.headers[proof.PROOF_HEADER]

    def signed(nonce: str = nonce, body: bytes = answer.content) -> bytes:
        return proof.content(nonce, f"resource/{PATH}", guest.key.public_jwk(), body)

    detached.verify(shown, signed(), {kid})
    for other in (signed(nonce[:-1] + "_"), signed(body=answer.content + b" ")):
        with pytest.raises(AuthenticationError):
            detached.verify(shown, other, {kid})
    assert proof.PROOF_HEADER not in (await guest.get(PATH)).headers


@pytest.mark.parametrize("nonce", ["", "A" * 21, "A" * 87, "!" * 32])
async def test_a_nonce_has_a_form(kbs: InProcessKbs, nonce: str) -> None:
    guest = Guest(kbs)
    await guest.handshake()
    answer = await guest.get(PATH, headers={proof.NONCE_HEADER: nonce})
    assert answer.status_code == 400
    assert "ciphertext" not in answer.text


@pytest.mark.parametrize(("nonce", "made"), [("A" * 32, None), ("A" * 21, "refused")])
async def test_where_others_sign_tokens_nothing_is_proved(nonce: str, made: str | None) -> None:
    released = Released(Response("e", "k", "i", "c", "t"), {})
    try:
        found = await Proofs(None).of(released, f"resource/{PATH}", nonce, b"")
    except FormatError:
        found = "refused"
    assert found == made
