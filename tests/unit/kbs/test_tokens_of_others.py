# SPDX-License-Identifier: Apache-2.0
"""Tokens that somebody else issued: the passport model, and replicas that share keys."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from _certificates import Party
from _kbs import URL, InProcessKbs, kbs_in_process
from _through import Through

from cocos._types import JsonObject
from cocos.attestation_service import signing_keys
from cocos.attestation_service.signing_keys import LEAD, SigningKeys
from cocos.clients.kbs_session import Session
from cocos.clients.key_sets import KeySet
from cocos.crypto import jwk, jwt
from cocos.crypto.signing import SigningKey
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import ConfigError
from cocos.kbs.config import NO_ATTESTATION
from cocos.wire.kbs import protocol as wire

SECRET = b"a key of 32 bytes for a resource"
NAME = wire.ResourcePath.parse("default/key/1")
JWKS = "/.well-known/jwks.json"
ALLOW = "package policy\nimport rego.v1\ndefault allow := false\n"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", 0.0)


async def store(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.set_resource(NAME, SECRET)


async def passport(kbs: InProcessKbs) -> Session:
    async with kbs.guest() as guest:
        return await guest.session()


async def get(kbs: InProcessKbs, path: str, token: str | None = None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http:
        return await http.get(path, headers=headers)


async def show(kbs: InProcessKbs, token: str) -> httpx.Response:
    return await get(kbs, f"/kbs/v0/resource/{NAME}", token)


async def accepted(kbs: InProcessKbs, session: Session) -> bool:
    answer = await show(kbs, session.token)
    if answer.status_code == 401:
        return False
    assert answer.status_code == 200, answer.text
    return session.decrypt(msgspec.convert(answer.json(), wire.Response)) == SECRET


async def keys_of(kbs: InProcessKbs) -> JsonObject:
    answer = await get(kbs, JWKS)
    assert answer.status_code == 200
    found: JsonObject = answer.json()
    return found


async def test_nobody_else_is_believed(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path / "a") as issuer, kbs_in_process(tmp_path / "b") as other:
        await store(issuer)
        await store(other)
        session = await passport(issuer)
        assert await accepted(issuer, session)
        assert not await accepted(other, session)
        assert not await accepted(issuer, await passport(other))


def claims_of(token: str) -> JsonObject:
    return jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)


async def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    async with kbs_in_process(tmp_path / "a") as issuer:
        file.write_text(json.dumps(await keys_of(issuer)))
        session = await passport(issuer)
        for name, place in {"b": str(file), "c": file.as_uri()}.items():
            async with kbs_in_process(tmp_path / name, trusted_jwk_sets=(place,)) as party:
                await store(party)
                assert await accepted(party, session)
                # One's own tokens count beside them.
                assert await accepted(party, await passport(party))
                forger, claims = SigningKey.generate(), claims_of(session.token)
                for header in ({}, jwt.header_of(session.token), {"jwk": forger.public_jwk()}):
                    more = {n: v for n, v in header.items() if n not in {"typ", "alg"}}
                    assert (await show(party, forger.sign(more, claims))).status_code == 401


async def test_no_policy_releases_anything_on_unbound_evidence(tmp_path: Path) -> None:
    """Signed by somebody trusted, affirming, and with a key in it: it may still be a replay."""
    key = SigningKey.generate()
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [key.public_jwk()]}))
    async with kbs_in_process(tmp_path / "b", trusted_jwk_sets=(str(file),)) as party:
        await store(party)
        async with party.admin() as admin:
            await admin.set_resource_policy("package policy\nallow := true if input.submods\n")
        claims = claims_of((await passport(party)).token)
        assert (await show(party, key.sign({}, claims))).status_code == 200
        claims["submods"]["gpu7"] = {"ear.cocos.insecure": ["sample", "unbound-evidence"]}
        assert (await show(party, key.sign({}, claims))).status_code == 401


async def test_keys_where_an_openid_issuer_has_them(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path / "a") as issuer:
        token = (await passport(issuer)).token
        for place in ("https://kbs.test", f"https://kbs.test{JWKS}"):
            keys = KeySet(
                place,
                jwk.parse_set,
                clock=issuer.clock,
                transport=Through(issuer.transport(), place),
            )
            assert (await keys.verify(token))["iss"] == "CoCo-Attestation-Service"
        document = (await get(issuer, "/.well-known/openid-configuration")).json()
        assert document["jwks_uri"] == URL + JWKS
        assert document["issuer"] == "CoCo-Attestation-Service"


async def test_certificates(tmp_path: Path) -> None:
    root = Party("root").certify(ca=True)
    leaf = Party("signer").certify(root)
    files = {"root.pem": root.pem, "chain.pem": leaf.pem + root.pem, "key.pem": leaf.key_pem}
    files["stranger.pem"] = Party("root").certify(ca=True).pem
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    signer: dict[str, Any] = {
        "token_key": tmp_path / "key.pem",
        "token_certificate": tmp_path / "chain.pem",
        "token_certificate_url": "https://kbs.test/chain.pem",
    }
    async with kbs_in_process(tmp_path / "a", **signer) as issuer:
        session = await passport(issuer)
        header = jwt.header_of(session.token)["jwk"]
        assert header["x5c"] == [leaf.x5c, root.x5c]
        assert header["x5u"] == "https://kbs.test/chain.pem"
        (published,) = (await keys_of(issuer))["keys"]
        assert published["x5c"] == header["x5c"]
        for name, expected in {"root.pem": True, "stranger.pem": False}.items():
            trusted = (tmp_path / name,)
            async with kbs_in_process(tmp_path / name[0], trusted_certs=trusted) as party:
                await store(party)
                assert await accepted(party, session) is expected
        async with kbs_in_process(
            tmp_path / "late", trusted_certs=(tmp_path / "root.pem",)
        ) as party:
            await store(party)
            party.now += dt.timedelta(days=40)
            assert not await accepted(party, session)


async def test_key_in_the_header_only_by_its_insecure_name(tmp_path: Path) -> None:
    async with (
        kbs_in_process(tmp_path / "a") as issuer,
        kbs_in_process(tmp_path / "b", insecure_header_jwk=True) as party,
        kbs_in_process(tmp_path / "c") as strict,
    ):
        claims = claims_of((await passport(issuer)).token)
        key, forger = TeeKeyPair.generate(), SigningKey.generate()
        evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        evidence["runtime_data_claims"]["tee-pubkey"] = key.public_jwk()
        forged = forger.sign({"jwk": forger.public_jwk()}, claims)
        with structlog.testing.capture_logs() as lines:
            for kbs, status in ((party, 200), (strict, 401)):
                await store(kbs)
                assert (await show(kbs, forged)).status_code == status
        said = [line for line in lines if line["event"] == "kbs.released-INSECURELY"]
        assert [line["because"] for line in said] == [["header-jwk"]]
        # Without alg, or with another, it is refused here, too.
        for jwk_members in ({**forger.public_jwk(), "alg": "ES384"}, {"kty": "EC"}, {}):
            bad = forger.sign({"jwk": jwk_members}, claims)
            assert (await show(party, bad)).status_code == 401
        # A policy sees it.
        wary = f'{ALLOW}allow if not input["ear.cocos.insecure"]\n'
        async with party.admin() as admin:
            await admin.set_resource_policy(wary)
        assert (await show(party, forged)).status_code == 403
        assert await accepted(party, await passport(party))


async def test_a_key_broker_without_attestation_believes_others_alone(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    async with (
        kbs_in_process(tmp_path / "a") as issuer,
        kbs_in_process(tmp_path / "b") as stranger,
    ):
        file.write_text(json.dumps(await keys_of(issuer)))
        async with kbs_in_process(
            tmp_path / "c", attestation=NO_ATTESTATION, trusted_jwk_sets=(str(file),)
        ) as party:
            await store(party)
            assert await accepted(party, await passport(issuer))
            assert not await accepted(party, await passport(stranger))
    with pytest.raises(ConfigError, match="nobody is trusted"):
        async with kbs_in_process(tmp_path / "d", attestation=NO_ATTESTATION):
            pass


async def test_an_operators_own_key_needs_no_certificate(tmp_path: Path) -> None:
    key = SigningKey.generate()
    file = tmp_path / "token.pem"
    file.write_bytes(key.pem())
    async with kbs_in_process(tmp_path / "a", token_key=file) as kbs:
        await store(kbs)
        session = await passport(kbs)
        header = jwt.header_of(session.token)
        assert header["kid"] == key.kid
        assert "x5c" not in header["jwk"]
        assert await accepted(kbs, session)


async def test_tee_key_at_an_extra_place(tmp_path: Path) -> None:
    key, signer = TeeKeyPair.generate(), SigningKey.generate()
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [signer.public_jwk()]}))
    extra: dict[str, Any] = {
        "trusted_jwk_sets": (str(file),),
        "extra_teekey_paths": ("/their/key",),
    }
    async with kbs_in_process(tmp_path / "a", **extra) as party:
        await store(party)
        claims = {
            "exp": party.now.timestamp() + 60,
            "submods": {"cpu0": {"ear.status": "affirming"}},
            "their": {"key": key.public_jwk()},
            "tee-pubkey": TeeKeyPair.generate().public_jwk(),
        }
        answer = await show(party, signer.sign({}, claims))
        assert key.decrypt(answer.json()) == SECRET


async def test_replicas_during_a_rotation(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    async with kbs_in_process(folder) as here, kbs_in_process(folder) as there:
        await store(here)
        assert here.store is not None
        operator = SigningKeys(here.store, clock=here.clock, token_lifetime=dt.timedelta(minutes=5))
        before = await passport(here)
        new = await operator.rotate(LEAD)
        for kbs in (here, there):
            published = [key["kid"] for key in (await keys_of(kbs))["keys"]]
            assert len(published) == 2
            assert new.kid in published
        sessions = [before]
        for seconds in (0, 29, 30, 60, 250):
            here.now = there.now = new.active - LEAD + dt.timedelta(seconds=seconds)
            sessions += [await passport(here), await passport(there)]
            for kbs in (here, there):
                assert all([await accepted(kbs, session) for session in sessions])
        kids = {jwt.header_of(session.token)["kid"] for session in sessions}
        assert len(kids) == 2
        await operator.revoke(jwt.header_of(before.token)["kid"])
        for kbs in (here, there):
            held = [await accepted(kbs, session) for session in sessions]
            by_new = [jwt.header_of(s.token)["kid"] == new.kid for s in sessions]
            assert held == by_new


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trusted_certs": "absent.pem"}, "cannot read"),
        ({"trusted_jwk_sets": "absent.json"}, "cannot read"),
        ({"trusted_jwk_sets": "http://127.0.0.1/keys"}, "http://"),
        ({"token_key": "absent.pem"}, "cannot read"),
    ],
)
async def test_settings_that_cannot_be_used(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    given: dict[str, Any] = {
        name: value if name == "token_key" else (value,) for name, value in settings.items()
    }
    with pytest.raises(ConfigError, match=message):
        async with kbs_in_process(tmp_path, **given):
            pass
