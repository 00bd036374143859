# SPDX-License-Identifier: Apache-2.0
"""What an attestation service gives out and gets back: the state between challenge and evidence.

Everybody here reaches the gRPC port. Only who was challenged, and answers once, in time, in the
session that the challenge was for, has a TPM.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from _attestation import attestation_server
from _software_tpm import SoftwareCa, SoftwareTpm, b64
from grpc import aio

from cocos._types import JsonObject
from cocos.attestation_service import challenges
from cocos.attestation_service.challenges import MAX_STATE
from cocos.crypto import base64url, jwk, jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire._generated import attestation_pb2 as pb
from cocos.wire._generated import attestation_pb2_grpc as pb_grpc
from cocos.wire.attestation_rpc import FINDINGS, decode_findings
from cocos.wire.json import canonical

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
TPM = SoftwareTpm()
KEY = TeeKeyPair.generate().public_jwk()


@dataclass
class World:
    """One storage, a clock, and a CA of endorsement keys that may be configured."""

    folder: Path
    now: dt.datetime = NOW
    ca: SoftwareCa = field(default_factory=lambda: SoftwareCa(NOW))

    @property
    def ca_file(self) -> Path:
        file = self.folder / "ca.pem"
        file.write_bytes(self.ca.pem())
        return file

    @contextlib.asynccontextmanager
    async def service(self, name: str = "as", **settings: Any) -> AsyncIterator["Service"]:
        """Have an attestation service of this storage."""
        settings = {"tpm_ek_ca": (self.ca_file,), **settings}
        async with (
            attestation_server(self.folder, clock=lambda: self.now, name=name, **settings) as at,
            aio.insecure_channel(at) as channel,
        ):
            yield Service(pb_grpc.AttestationServiceStub(channel))


@dataclass
class Asked:
    """A challenge and the answer of its TPM."""

    nonce: str
    state: str
    secret: bytes


@dataclass
class Service:
    stub: Any

    async def ask(self, world: World, tpm: SoftwareTpm = TPM, **more: str) -> Asked:
        params = {"tpm": tpm.params(world.ca.certificate(tpm.ek))}
        inner = {"tee": "tpm", "tee_params": json.dumps(params), **more}
        answer = await self.stub.GetAttestationChallenge(pb.ChallengeRequest(inner=inner))
        secret = tpm.activate(json.loads(answer.params))
        return Asked(answer.attestation_challenge, answer.state, secret)

    async def evaluate(self, *requests: pb.IndividualAttestationRequest) -> JsonObject:
        """Return the claims of the first submodule, or raise what gRPC says."""
        request = pb.AttestationRequest(verification_requests=requests)
        token = (await self.stub.AttestationEvaluate(request)).attestation_token
        claims = jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)
        found: JsonObject = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["tpm"]
        return found


def request(
    nonce: Any, state: str, secret: bytes | None, tpm: SoftwareTpm = TPM, tee: str = "tpm"
) -> pb.IndividualAttestationRequest:
    runtime = {"nonce": nonce, "tee-pubkey": KEY, "additional-evidence": ""}
    bound = hashlib.sha384(canonical(runtime)).digest()
    evidence = tpm.quote(bound, secret=secret)
    return pb.IndividualAttestationRequest(
        tee=tee,
        evidence=base64url.encode(json.dumps(evidence).encode()),
        structured_runtime_data=json.dumps(runtime),
        state=state,
    )


async def refused(call: Awaitable[Any]) -> set[str]:
    """Return the checks that failed."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, caught.value.details()
    trailing = dict(caught.value.trailing_metadata() or ())
    data = trailing[FINDINGS]
    assert isinstance(data, bytes)
    return {finding.check for finding in decode_findings(data)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- forged -------------------------------------------------------------------------------


def forged(tpm: SoftwareTpm, secret: bytes) -> str:
    """The state as the first versions gave it out."""
    return json.dumps({"ak": hashlib.sha256(tpm.spki).hexdigest(), "secret": b64(secret)})


def announced(world: World) -> str:
    """A state in the members that a verifier keeps, sealed by nobody."""
    return json.dumps(TPM.params(world.ca.certificate(TPM.ek)))


@pytest.mark.parametrize("configured", [False, True], ids=["no EK CA", "EK CA"])
@pytest.mark.parametrize(
    "state",
    [
        lambda _: forged(TPM, bytes(32)),
        announced,
        lambda _: "{}",
        lambda _: "!",
        lambda _: base64url.encode(bytes(200)),
        lambda _: base64url.encode(b"\1" + bytes(200)),
        lambda _: base64url.encode(
            b"\1" + int(NOW.timestamp() // 3600).to_bytes(8, "big") + bytes(99)
        ),
    ],
)
async def test_a_software_key_and_a_state_of_ones_own(
    world: World, state: Callable[[World], str], *, configured: bool
) -> None:
    settings: dict[str, Any] = {} if configured else {"tpm_ek_ca": ()}
    async with world.service(**settings) as service:
        if configured:
            await service.ask(world)  # there is a key to seal with
        call = service.evaluate(request("n", state(world), bytes(32)))
        assert await refused(call) == {"tpm.state"}


async def test_who_was_challenged_answers(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world)
        claims = await service.evaluate(request(asked.nonce, asked.state, asked.secret))
        assert claims["ak_trusted"] == "manager-ca"


# --- somebody else's, another time's ------------------------------------------------------


async def test_the_largest_announcement_has_a_state_that_is_read(world: World) -> None:
    """And what is longer is not even decoded: one call of it would be a long one."""
    longest = json.dumps({"ek_certificate": "A" * 2**14, "ak_public": "A" * 2**12}).encode()
    assert len(base64url.encode(longest)) < MAX_STATE // 2
    async with world.service() as service:
        asked = await service.ask(world)
        for state, check in ((asked.state, "tpm.credential"), ("A" * 3_000_000, "tpm.state")):
            seen: list[int] = []

            def decode(text: str, what: str, seen: list[int] = seen) -> bytes:
                seen.append(len(text))
                return base64url.decode(text, what)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(challenges, "base64url", SimpleNamespace(decode=decode))
                assert await refused(service.evaluate(request(asked.nonce, state, bytes(32)))) == {
                    check
                }
            assert len(seen) == (check == "tpm.credential")


async def test_a_state_serves_once(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world)
        made = request(asked.nonce, asked.state, asked.secret)
        await service.evaluate(made)
        assert await refused(service.evaluate(made)) == {"tpm.state"}
        # Nor does it for two attesters of one request, or after evidence that did not hold.
        again = await service.ask(world)
        made = request(again.nonce, again.state, again.secret)
        assert "tpm.state" in await refused(service.evaluate(made, made))
        third = await service.ask(world)
        wrong = request(third.nonce, third.state, bytes(32))
        assert await refused(service.evaluate(wrong)) == {"tpm.credential"}
        made = request(third.nonce, third.state, third.secret)
        assert await refused(service.evaluate(made)) == {"tpm.state"}


async def test_replicas_share_challenges_and_their_end(world: World) -> None:
    async with world.service("one") as one, world.service("two") as two:
        asked = await one.ask(world)
        made = request(asked.nonce, asked.state, asked.secret)
        assert (await two.evaluate(made))["ak_trusted"] == "manager-ca"
        for service in (one, two):
            assert await refused(service.evaluate(made)) == {"tpm.state"}


async def test_of_many_at_once_one_is_believed(world: World) -> None:
    async with world.service("one") as one, world.service("two") as two:
        asked = await two.ask(world)
        made = request(asked.nonce, asked.state, asked.secret)
        calls = [service.evaluate(made) for service in (one, two) * 4]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, dict) for each in results) == 1


async def test_a_state_of_another_nonce(world: World) -> None:
    async with world.service() as service:
        asked, other = await service.ask(world), await service.ask(world)
        for nonce in (other.nonce, "", None, 7, [asked.nonce], asked.nonce + " "):
            call = service.evaluate(request(nonce, asked.state, asked.secret))
            assert await refused(call) == {"tpm.state"}
        raw = request(asked.nonce, asked.state, asked.secret)
        raw.raw_runtime_data = base64url.encode(bytes(48))  # which shows no nonce
        assert await refused(service.evaluate(raw)) == {"tpm.state"}
        # None of that used it up: who cannot open it cannot spoil it.
        made = request(asked.nonce, asked.state, asked.secret)
        assert await service.evaluate(made)


async def test_a_caller_cannot_choose_the_nonce(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world, nonce="AAAA")
        assert len(base64.b64decode(asked.nonce)) == 32


async def test_a_state_of_another_tee(world: World) -> None:
    async with world.service(insecure_allow_sample=True) as service:
        asked = await service.ask(world)
        runtime = {"nonce": asked.nonce, "tee-pubkey": KEY}
        bound = base64.b64encode(hashlib.sha384(canonical(runtime)).digest()).decode()
        sample = pb.IndividualAttestationRequest(
            tee="sample",
            evidence=base64url.encode(json.dumps({"svn": "1", "report_data": bound}).encode()),
            structured_runtime_data=json.dumps(runtime),
            state=asked.state,
        )
        assert await refused(service.evaluate(sample)) == {"sample.state"}


async def test_a_state_of_another_service(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other", ca=world.ca)
    other.folder.mkdir()
    async with world.service() as service, other.service() as elsewhere:
        await service.ask(world)
        asked = await elsewhere.ask(world)
        call = service.evaluate(request(asked.nonce, asked.state, asked.secret))
        assert await refused(call) == {"tpm.state"}


async def test_a_state_of_another_time(world: World) -> None:
    async with world.service(timeout=5) as service:
        asked = await service.ask(world)
        made = request(asked.nonce, asked.state, asked.secret)
        for minutes in (5, 60, 120, 24 * 60, 24 * 60 * 3650, -60 * 24):
            world.now = NOW + dt.timedelta(minutes=minutes)
            if minutes > 0:
                assert await refused(service.evaluate(made)) == {"tpm.state"}
        world.now = NOW + dt.timedelta(minutes=5, seconds=-1)
        assert await service.evaluate(made)


async def test_every_bit_of_a_state_counts(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world)
        raw = base64url.decode(asked.state, "state")
        for place in (0, 1, 8, 9, 20, 21, len(raw) // 2, len(raw) - 16, len(raw) - 1):
            changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
            made = request(asked.nonce, base64url.encode(changed), asked.secret)
            assert await refused(service.evaluate(made)) == {"tpm.state"}


async def test_the_secret_is_nowhere_in_what_is_given_out(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world)
        raw = base64url.decode(asked.state, "state")
        for form in (asked.secret, asked.secret.hex().encode(), b64(asked.secret).encode()):
            assert form not in raw


# --- why a key is trusted is worked out anew ----------------------------------------------


async def test_a_ca_that_is_no_longer_trusted(world: World) -> None:
    async with world.service("one") as before:
        asked = await before.ask(world)
    new = World(world.folder, ca=SoftwareCa(NOW, "another"))
    made = request(asked.nonce, asked.state, asked.secret)
    async with new.service("two") as service:
        assert await refused(service.evaluate(made)) == {"tpm.ek-certificate"}


async def test_a_certificate_that_has_expired_since(world: World) -> None:
    async with world.service(timeout=24 * 60) as service:
        world.now = NOW + dt.timedelta(hours=23)
        asked = await service.ask(world)  # the certificate ends a day after NOW
        world.now += dt.timedelta(hours=2)
        made = request(asked.nonce, asked.state, asked.secret)
        assert await refused(service.evaluate(made)) == {"tpm.ek-certificate"}


async def test_another_key_than_the_announced_one(world: World) -> None:
    async with world.service() as service:
        asked = await service.ask(world)
        other = SoftwareTpm()
        call = service.evaluate(request(asked.nonce, asked.state, asked.secret, other))
        assert await refused(call) == {"tpm.ak"}
