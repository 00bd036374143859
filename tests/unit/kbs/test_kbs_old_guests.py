# SPDX-License-Identifier: Apache-2.0
"""Guests of every generation at one KBS, and guests that mix them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from _generations import EARLY, EVERY, Guest, key, key_of
from _kbs import InProcessKbs, kbs_in_process

from cocos.crypto.tee_key import EC_P256, EC_P521, RSA, RSA_EARLY, TeeKeyPair
from cocos.errors import FormatError
from cocos.policy import owners
from cocos.policy.owners import Terms
from cocos.wire.kbs.protocol import PROBLEM_TYPE, ResourcePath

ROOT = Path(__file__).resolve().parents[3]
PATH = "default/key/1"
SECRET = b"\x00KEK\xff" + bytes(27)
EARLY_KEY = key(RSA_EARLY)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kbs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path_factory.mktemp("kbs")) as made:
        async with made.admin() as admin:
            await admin.set_resource(ResourcePath.parse(PATH), SECRET)
        yield made


async def explained(kbs: InProcessKbs, answer: Any) -> dict[str, Any]:
    async with kbs.admin() as admin:
        return dict(await admin.explain(answer.json()["id"]))


@pytest.mark.parametrize("algorithm", [EC_P256, EC_P521, RSA, RSA_EARLY])
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
async def test_every_key_of_today_s_form(kbs: InProcessKbs, version: str, algorithm: str) -> None:
    guest = Guest(kbs, version, key(algorithm))
    await guest.handshake()
    assert guest.key.decrypt((await guest.get(PATH)).json()) == SECRET


async def test_the_form_of_0_1_1(kbs: InProcessKbs) -> None:
    guest = Guest(kbs, "0.1.1", EARLY_KEY)
    await guest.handshake()
    answer = (await guest.get(PATH)).json()
    assert EARLY_KEY.decrypt_early(answer) == SECRET
    with pytest.raises(FormatError):
        EARLY_KEY.decrypt(answer)


async def test_a_bearer_gets_today_s_form(kbs: InProcessKbs) -> None:
    # A token does not tell of which generation its guest was.
    guest = Guest(kbs, "0.1.1", EARLY_KEY)
    await guest.handshake()
    guest.cookie = ""
    answer = await guest.get(PATH, headers={"Authorization": f"Bearer {guest.token}"})
    assert EARLY_KEY.decrypt(answer.json()) == SECRET


@pytest.mark.parametrize("version", EVERY)
async def test_a_key_s_policy_holds_for_every_generation(kbs: InProcessKbs, version: str) -> None:
    """Sample evidence counts here, but names no computation: in no form, by no route."""
    bound = ResourcePath.parse("default/key/bound")
    policy = owners.write(Terms(computations=(owners.only_algorithm("a" * 64),)), said="a test")
    async with kbs.admin() as admin:
        await admin.set_resource_policy(policy, f"resource/{bound}")
        await admin.set_resource(bound, SECRET)
    guest = Guest(kbs, version, key_of(version))
    await guest.handshake()
    assert (await guest.get(PATH)).status_code == 200
    answers = [await guest.get(route) for route in (str(bound), "default/key/%62ound")]
    guest.cookie = ""
    bearer = {"Authorization": f"Bearer {guest.token}"}
    answers.append(await guest.get(str(bound), headers=bearer))
    for answer in answers:
        assert answer.status_code in {401, 403}
        findings = (await explained(kbs, answer))["findings"]
        assert "tpm.computations" in [each["check"] for each in findings]


@pytest.mark.parametrize("algorithm", [EC_P256, EC_P521, RSA])
async def test_0_1_1_knows_rsa1_5_only(kbs: InProcessKbs, algorithm: str) -> None:
    guest = Guest(kbs, "0.1.1", key(algorithm))
    await guest.auth()
    answer = await guest.attest()
    assert answer.status_code == 400
    assert "RSA1_5" in answer.json()["detail"]


@pytest.mark.parametrize("version", ["0.1.0", "0.0.1", "0.3.0", "0.5.0", "1.0.0"])
async def test_other_versions_get_trustee_s_sentence(kbs: InProcessKbs, version: str) -> None:
    answer = await Guest(kbs, version).auth()
    assert answer.status_code == 400
    assert answer.json()["type"] == f"{PROBLEM_TYPE}AttestationError"
    assert answer.json()["detail"] == (
        "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: "
        f"expect =0.4.0 while the request is {version}"
    )
    found = await explained(kbs, answer)
    assert found["step"] == "POST /kbs/v0/auth"
    assert [each["check"] for each in found["findings"]] == ["request.version"]
    assert found["findings"][0]["actual"] == version


@pytest.mark.parametrize("other", EVERY)
@pytest.mark.parametrize("version", EVERY)
async def test_a_session_cannot_change_its_generation(
    kbs: InProcessKbs, version: str, other: str
) -> None:
    guest = Guest(kbs, version, EARLY_KEY)
    await guest.auth()
    answer = await guest.attest(guest.body(other))
    same_form = (version in EARLY) == (other in EARLY)
    assert answer.status_code == (200 if same_form else 400)
    if not same_form:
        assert f"protocol {version}" in answer.json()["detail"]
        # Nothing was appraised: the real attestation can still come.
        assert (await guest.attest()).status_code == 200


async def test_evidence_of_a_device_is_not_the_cpu_s(kbs: InProcessKbs) -> None:
    """What a device signs in 0.4.0 is what a CPU signed before.

    So somebody on the way opens an early session and shows the one as the other.
    """
    victim = Guest(kbs, "0.2.0", tee="sampledevice")
    await victim.auth()
    answer = await victim.attest(
        {"tee-pubkey": victim.key.public_jwk(), "tee-evidence": victim.device()}
    )
    assert answer.status_code == 401
    found = await explained(kbs, answer)
    assert [each["check"] for each in found["findings"]] == ["tee"]  # it is no machine
    assert (await victim.get(PATH)).status_code == 401


@pytest.mark.parametrize("version", EARLY)
@pytest.mark.parametrize("swap", ["nonce", "key", "full-form"])
async def test_early_evidence_is_bound(kbs: InProcessKbs, version: str, swap: str) -> None:
    guest = Guest(kbs, version, key_of(version))
    await guest.auth()
    body = guest.body()
    if swap == "nonce":
        other = Guest(kbs, version, guest.key)
        await other.auth()
        body = other.body()
    elif swap == "key":
        other_key = TeeKeyPair.generate(RSA_EARLY if version == "0.1.1" else EC_P256)
        body["tee-pubkey"] = other_key.public_jwk()
    else:
        body["tee-evidence"] = guest.body("0.4.0")["tee-evidence"]["primary_evidence"]
    answer = await guest.attest(body)
    assert answer.status_code == 401
    assert "not bound" in answer.json()["detail"]
    found = await explained(kbs, answer)
    assert [each["check"] for each in found["findings"]] == ["sample.report_data"]
    assert (await guest.get(PATH)).status_code == 401


@pytest.mark.parametrize("version", EARLY)
async def test_early_tokens_claim_no_devices_and_no_init_data(
    kbs: InProcessKbs, version: str
) -> None:
    guest = Guest(kbs, version, key_of(version))
    await guest.auth()
    body = guest.body()
    body["init-data"] = {"format": "toml", "body": 'version = "1"'}
    assert (await guest.attest(body)).status_code == 200
    evidence = guest.claims()["cpu0"]["ear.veraison.annotated-evidence"]
    assert "init_data" not in evidence
    assert set(evidence["runtime_data_claims"]) == {"nonce", "tee-pubkey"}


async def test_everything_wrong_is_explained_at_once(kbs: InProcessKbs) -> None:
    guest = Guest(kbs)
    await guest.auth()
    body = guest.body()
    body["runtime-data"]["nonce"] = "other"
    body["runtime-data"]["tee-pubkey"] = {"kty": "OKP", "crv": "P-384", "alg": "ECDH-ES+A256KW"}
    body["tee-evidence"]["additional_evidence"] = '{"sampledevice":{},"sampledevice":{}}'
    answer = await guest.attest(body)
    assert answer.status_code == 400
    assert "OKP" in answer.json()["detail"]
    problems = [each["problem"] for each in (await explained(kbs, answer))["findings"]]
    for problem, word in zip(problems, ("OKP", "twice", "nonce"), strict=True):
        assert word in problem


@pytest.mark.parametrize(
    ("jwk", "named"),
    [
        ({"kty": "OKP", "crv": "X25519", "x": "AA", "alg": "ECDH-ES+A256KW"}, "OKP"),
        ({"kty": "AKP", "pub": "AA", "alg": "ML-KEM-768+A192KW"}, "AKP"),
        ({"kty": "oct", "k": "AA"}, "oct"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
async def test_a_key_of_another_kind_is_refused_by_name(
    kbs: InProcessKbs, version: str, jwk: dict[str, str], named: str
) -> None:
    guest = Guest(kbs, version)
    await guest.auth()
    body = guest.body()
    (body if version in EARLY else body["runtime-data"])["tee-pubkey"] = jwk
    answer = await guest.attest(body)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


async def test_a_policy_can_refuse_weak_keys(tmp_path: Path) -> None:
    """With the rule that docs/operate/kbs.md shows."""
    page = (ROOT / "docs/operate/kbs.md").read_text("utf-8")
    rule = page.partition("```rego\n")[2].partition("```")[0]
    policy = f"package policy\nimport rego.v1\ndefault allow := false\n{rule}allow if strong\n"
    async with kbs_in_process(tmp_path) as strict:
        async with strict.admin() as admin:
            await admin.set_resource(ResourcePath.parse(PATH), SECRET)
            await admin.set_resource_policy(policy)
        for algorithm, status in ((RSA_EARLY, 403), (RSA, 200), (EC_P256, 200)):
            guest = Guest(strict, key=key(algorithm))
            await guest.handshake()
            assert (await guest.get(PATH)).status_code == status


async def test_an_operator_ends_old_generations(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path, oldest_protocol="0.4.0") as strict:
        for version in EARLY:
            answer = await Guest(strict, version).auth()
            assert answer.status_code == 400
            assert answer.json()["hint"] == "this KBS speaks 0.4.0"
        await Guest(strict).handshake()
