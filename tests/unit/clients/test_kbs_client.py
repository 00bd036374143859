# SPDX-License-Identifier: Apache-2.0
"""The guest's and the admin's client against a real key broker in process."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _kbs import URL, InProcessKbs, admin_pair, kbs_in_process
from _through import Through

from cocos._types import JsonObject
from cocos.attesters import InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.clients.kbs_session import OwnSessions
from cocos.crypto import base64url
from cocos.crypto.tee_key import ALGORITHMS, TeeKeyPair
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CallerError,
    CocosError,
    IntegrityError,
    NotFoundError,
)
from cocos.wire.kbs.protocol import InitData, ResourcePath, ResourceUri

PATH = ResourcePath.parse("default/key/algo-key")
URI = ResourceUri.parse(PATH.uri)
GET = f"GET /kbs/v0/resource/{PATH}"
SECRET = bytes(range(32))


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as kbs:
        async with kbs.admin() as admin:
            await admin.set_resource(PATH, SECRET)
        yield kbs


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path, allow_sample=False) as kbs:
        yield kbs


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64url.decode(token.split(".")[1], "payload"))
    return claims


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_resource_comes_encrypted_to_every_kind_of_key(
    kbs: InProcessKbs, algorithm: str
) -> None:
    async with kbs.guest(key_algorithm=algorithm) as guest:
        assert await guest.get_resource(URI) == SECRET


def sessions(guest: KbsClient) -> OwnSessions:
    assert isinstance(guest._sessions, OwnSessions)
    return guest._sessions


async def test_many_resources_cost_one_handshake(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        for _ in range(3):
            assert await guest.get_resource(URI) == SECRET
        token = await guest.attest()
        assert await guest.attest() == token
    assert kbs.handshakes == 1
    assert kbs.count("POST /kbs/v0/attest") == 1


async def test_twenty_at_once_cost_one_handshake(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        assert await asyncio.gather(*(guest.get_resource(URI) for _ in range(20))) == [SECRET] * 20
    assert kbs.handshakes == 1
    assert kbs.count("POST /kbs/v0/attest") == 1
    assert kbs.count(GET) == 20


async def test_a_session_that_the_kbs_ended_is_renewed_once(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        before = await guest.session()
        await guest.get_resource(URI)
        kbs.now = kbs.now.replace(hour=13)
        assert await asyncio.gather(*(guest.get_resource(URI) for _ in range(5))) == [SECRET] * 5
        after = await guest.session()
    assert kbs.handshakes == 2
    assert after.key.public_jwk() != before.key.public_jwk()


async def test_a_session_at_its_end_is_not_used(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        session = await guest.session()
        now = asyncio.get_running_loop().time()
        assert now + 60 < session.ends_at < now + 300  # a token is good for five minutes
        sessions(guest)._session = (0, dataclasses.replace(session, ends_at=now))
        assert await guest.get_resource(URI) == SECRET
    assert kbs.handshakes == 2
    assert kbs.count(GET) == 1


async def test_a_session_from_before_a_measurement_is_not_used(kbs: InProcessKbs) -> None:
    """Its token would open one computation's keys to the next."""

    class Measuring(InsecureSampleAttester):
        generation = 0
        during = 0

        async def evidence(
            self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
        ) -> Any:
            made = await super().evidence(report_data, challenge, events=events)
            self.generation += self.during
            return made

    machine = Measuring()
    async with KbsClient(
        URL, machine, generation=lambda: machine.generation, transport=Through(kbs.transport())
    ) as guest:
        before = await guest.attest()
        assert await guest.attest() == before
        machine.generation += 1
        after = await guest.attest()
        assert after != before
        machine.generation += 1
        machine.during = 1  # measured while a handshake is on its way
        early, late = await asyncio.gather(guest.attest(), guest.attest())
        machine.during = 0
        assert early != late
        assert await guest.attest() not in {before, after, early, late}


async def test_an_unknown_resource_is_asked_for_once(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        with pytest.raises(NotFoundError, match="default/key/other") as caught:
            await guest.get_resource(ResourceUri.parse("kbs:///default/key/other"))
    assert URL in caught.value.message
    assert kbs.handshakes == 1
    assert kbs.count("GET /kbs/v0/resource/default/key/other") == 1


async def test_refused_sample_evidence_is_not_tried_again_and_says_what_allows_it(
    strict: InProcessKbs,
) -> None:
    async with strict.guest() as guest:
        with pytest.raises((AuthenticationError, AccessDeniedError)) as caught:
            await guest.get_resource(URI)
    hint = caught.value.hint or ""
    assert "--insecure-allow-sample" in hint + caught.value.message
    assert strict.handshakes == 1
    denial = hint.partition("kbs-client explain ")[2]
    async with strict.admin() as admin:
        found = await admin.explain(denial)
    assert found["id"] == denial
    assert found["findings"]


async def test_twenty_refused_at_once_cost_one_handshake_and_the_next_tries_again(
    strict: InProcessKbs,
) -> None:
    async with strict.guest() as guest:
        outcomes = await asyncio.gather(
            *(guest.get_resource(URI) for _ in range(20)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {type(outcomes[0])}
        assert isinstance(outcomes[0], CocosError)
        assert strict.handshakes == 1
        with pytest.raises(type(outcomes[0])):
            await guest.get_resource(URI)
    assert strict.handshakes == 2


async def test_a_caller_that_gives_up_does_not_take_the_others_along(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        first, *others = [asyncio.create_task(guest.get_resource(URI)) for _ in range(3)]
        await asyncio.sleep(0)  # all three have begun; the first one holds the lock
        assert sessions(guest)._lock.locked()
        first.cancel()
        assert await asyncio.gather(*others) == [SECRET] * 2
        assert first.cancelled()


async def test_a_policy_denial_is_final_and_explained(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.set_resource_policy("package policy\ndefault allow := false\n")
    async with kbs.guest() as guest:
        with pytest.raises(AccessDeniedError) as caught:
            await guest.get_resource(URI)
    assert kbs.handshakes == 1
    assert kbs.count(GET) == 1
    denial = (caught.value.hint or "").partition("kbs-client explain ")[2]
    async with kbs.admin() as admin:
        findings = (await admin.explain(denial))["findings"]
    assert {"check", "problem", "actual", "expected"} <= findings[0].keys()


async def test_a_session_serves_only_its_own_key(kbs: InProcessKbs) -> None:
    async with kbs.guest() as guest:
        stolen = dataclasses.replace(await guest.session(), key=TeeKeyPair.generate())
    async with kbs.guest() as thief:
        sessions(thief)._session = (0, stolen)
        with pytest.raises(IntegrityError, match="does not decrypt"):
            await thief.get_resource(URI)


async def test_evidence_for_another_key_is_refused(kbs: InProcessKbs) -> None:
    class Replayer(InsecureSampleAttester):
        """Sends evidence that was made for somebody else."""

        async def evidence(
            self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
        ) -> Any:
            return await super().evidence(bytes(len(report_data)), challenge, events=events)

    async with kbs.guest(Replayer()) as guest:
        with pytest.raises(AuthenticationError):
            await guest.attest()
    assert kbs.handshakes == 1


async def test_init_data_reaches_the_token(kbs: InProcessKbs) -> None:
    body = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\nnote = "from the host"\n'
    async with kbs.guest(init_data=InitData("toml", body)) as guest:
        token = await guest.attest()
    assert "from the host" in json.dumps(claims_of(token))


async def test_an_admin_with_another_key_changes_nothing(kbs: InProcessKbs) -> None:
    async with kbs.admin(admin_pair()[0]) as admin:
        with pytest.raises(AuthenticationError) as caught:
            await admin.set_resource(PATH, b"forged")
    assert "kbs-client admin-token" in (caught.value.hint or "")
    async with kbs.guest() as guest:
        assert await guest.get_resource(URI) == SECRET


async def test_a_deleted_resource_is_gone(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.delete_resource(PATH)
        with pytest.raises(NotFoundError):
            await admin.delete_resource(PATH)
    async with kbs.guest() as guest:
        with pytest.raises(NotFoundError):
            await guest.get_resource(URI)


async def test_reference_values_come_back(kbs: InProcessKbs) -> None:
    values = {"rvps:///a/b c:1": ["x"], "number": 3, "yes": True}
    async with kbs.admin() as admin:
        await admin.register_reference_values(values)
        for name, value in values.items():
            assert await admin.get_reference_value(name) == value
        with pytest.raises(NotFoundError):
            await admin.get_reference_value("absent")


async def test_a_policy_that_is_no_rego_is_refused(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        with pytest.raises(CallerError):
            await admin.set_attestation_policy("default_cpu", "this is not Rego")
        with pytest.raises(CallerError):
            await admin.set_resource_policy("this is not Rego")


async def test_an_attestation_policy_decides_the_verdict(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.set_attestation_policy(
            "default_cpu", 'package policy\ntrust_claims := {"executables": 33}\n'
        )
    async with kbs.guest() as guest:
        with pytest.raises(AccessDeniedError):
            await guest.get_resource(URI)


async def test_after_a_denial_the_next_call_shows_new_evidence(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin, kbs.guest() as guest:
        await admin.set_attestation_policy("default_cpu", "package policy\ntrust_claims := {}")
        for _ in range(2):
            with pytest.raises(AccessDeniedError):
                await guest.get_resource(URI)
        await admin.delete_attestation_policy("default_cpu")
        assert await guest.get_resource(URI) == SECRET
        assert await guest.get_resource(URI) == SECRET
    assert kbs.handshakes == 3


async def test_nothing_is_known_about_a_denial_that_never_was(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        for denial in ("0" * 16, "../resource", "?"):
            with pytest.raises(NotFoundError):
                await admin.explain(denial)
