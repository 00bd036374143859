# SPDX-License-Identifier: Apache-2.0
"""The attestation service with a real store, real policies and real keys."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from _engine import LocalEngine

from cocos._types import JsonObject
from cocos.attestation_service import reference_values
from cocos.attestation_service.annotate import init_claims
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.request import AppraisalRequest
from cocos.attestation_service.service import (
    AttestationService,
)
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import jwk, jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import EvidenceError, FormatError, NotFoundError, TooLargeError
from cocos.policy import defaults
from cocos.policy.appraisal import INSECURE
from cocos.stores.base import Namespace, Store
from cocos.tokens.check import tee_public_key
from cocos.wire import init_data
from cocos.wire.init_data import InitDocument
from cocos.wire.kbs.protocol import InitData, Tee, report_data

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
TEE_JWK = TeeKeyPair.generate().public_jwk()
EVIDENCE = "ear.veraison.annotated-evidence"
INIT_DATA = """version = "0.1.0"
algorithm = "sha256"
[data]
"aa.toml" = 'url = "http://127.0.0.1"'
"cdh.toml" = '''
[image]
extra_root_certificates = ["cert"]
when = 2026-11-23
'''
"broken" = "= ="
"policy.rego" = '''
package agent_policy
policy_data := {"containers": [{"OCI": {"Process": {"Args": ["a", "b"], "User": {"UID": 7}}}}]}
'''
"""


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now


Make = Callable[..., AttestationService]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(store: Store, clock: Clock) -> Make:
    def made(*, insecure_allow_sample: bool = True, **settings: Any) -> AttestationService:
        keys = SigningKeys(store, clock=clock, token_lifetime=dt.timedelta(minutes=5))
        config = AttestationServiceConfig(insecure_allow_sample=insecure_allow_sample, **settings)
        return AttestationService(
            store, keys=keys, config=config, engine=LocalEngine(), clock=clock
        )

    return made


def bound(data: JsonObject, svn: str = "1") -> JsonObject:
    return {"svn": svn, "report_data": base64.b64encode(report_data(data)).decode()}


RUNTIME_DATA: JsonObject = {"nonce": "nonce", "tee-pubkey": TEE_JWK, "additional-evidence": ""}


def request(*, devices: bool = False, **changes: Any) -> AppraisalRequest:
    data: JsonObject = {"nonce": "nonce", "tee-pubkey": TEE_JWK}
    device = bound(data, "2")
    text = json.dumps({"sampledevice": device}) if devices else ""
    primary = {**data, "additional-evidence": text}
    fields = {
        "tee": Tee.SAMPLE,
        "evidence": bound(primary),
        "runtime_data": primary,
        "additional": {Tee.SAMPLE_DEVICE: device} if devices else {},
    }
    return AppraisalRequest.of_handshake(**(fields | changes))


def claims_of(token: str) -> Any:
    return jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)


async def test_sample_where_it_is_allowed(make: Make) -> None:
    appraisal = await make().appraise(request())
    claims = claims_of(appraisal.token)
    submod = claims["submods"]["cpu0"]
    assert submod["ear.status"] == "affirming"
    assert submod[INSECURE] == ["sample"]
    assert appraisal.findings == ()
    assert submod[EVIDENCE]["runtime_data_claims"] == RUNTIME_DATA
    assert submod[EVIDENCE]["sample"] == {
        "svn": "1",
        "launch_digest": "abcde",
        "platform_version": {"major": 1, "minor": 4},
        "debug": False,
    }
    assert "init_data" not in submod[EVIDENCE]
    assert tee_public_key(claims) == TEE_JWK
    assert claims["exp"] - claims["iat"] == 300
    assert claims["iss"] == "CoCo-Attestation-Service"


async def test_sample_where_it_is_not(make: Make) -> None:
    with pytest.raises(EvidenceError, match="--insecure-allow-sample"):
        await make(insecure_allow_sample=False).appraise(request())


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "other"},
        {"nonce": ""},
        {"tee-pubkey": TeeKeyPair.generate().public_jwk()},
        {"additional-evidence": "{}"},
    ],
)
async def test_evidence_for_something_else(make: Make, changes: JsonObject) -> None:
    swapped = request(runtime_data={**RUNTIME_DATA, **changes})
    with pytest.raises(EvidenceError, match="not bound"):
        await make().appraise(swapped)


async def test_several_attesters_of_a_class_are_several_submodules(make: Make) -> None:
    """Or one machine's verdict would stand in the place of another's."""
    one, other = (request(evidence=bound(RUNTIME_DATA, svn)).attesters[0] for svn in "12")
    appraisal = await make().appraise(AppraisalRequest((one, other)))
    submods = claims_of(appraisal.token)["submods"]
    shown = {name: part[EVIDENCE]["sample"]["svn"] for name, part in submods.items()}
    assert shown == {"cpu0": "1", "cpu1": "2"}


@pytest.mark.parametrize("allowed", [True, False])
def test_who_believes_sample_evidence_says_so_at_its_start(make: Make, *, allowed: bool) -> None:
    with structlog.testing.capture_logs() as lines:
        make(insecure_allow_sample=allowed)
    warned = [line for line in lines if line["event"] == "attestation.insecure"]
    assert [line["log_level"] for line in warned] == ["warning"] * allowed


@pytest.mark.parametrize("hardware", [2, 97])
async def test_the_operators_log_has_what_is_not_affirming(make: Make, hardware: int) -> None:
    service = make()
    policy = f'package policy\ntrust_claims := {{"hardware": {hardware}}}'
    await service.set_policy("default_cpu", policy)
    with structlog.testing.capture_logs() as lines:
        appraisal = await service.appraise(request())
    logged = [line["findings"] for line in lines if line["event"] == "attestation.not-affirming"]
    assert logged == [list(appraisal.findings)] * (hardware > 2)


async def test_replayed_device_evidence(make: Make) -> None:
    good = request(devices=True)
    appraisal = await make().appraise(good)
    submods = claims_of(appraisal.token)["submods"]
    assert {name: part["ear.status"] for name, part in submods.items()} == {
        "cpu0": "affirming",
        "gpu0": "affirming",
    }
    assert "additional-evidence" not in submods["gpu0"][EVIDENCE]["runtime_data_claims"]
    stale = {Tee.SAMPLE_DEVICE: bound({"nonce": "old", "tee-pubkey": TEE_JWK})}
    with pytest.raises(EvidenceError):
        await make().appraise(request(devices=True, additional=stale))


async def test_all_failures_at_once(make: Make) -> None:
    bad = request(evidence={}, additional={Tee.SAMPLE_DEVICE: {}, Tee.HYGON_DCU: {}})
    with pytest.raises(EvidenceError) as caught:
        await make().appraise(bad)
    checks = [finding.check for finding in caught.value.findings]
    assert checks == ["sample.evidence", "sampledevice.evidence", "tee"]


async def test_a_failure_does_not_hide_what_policies_say_of_the_others(make: Make) -> None:
    service = make()
    await service.set_policy("default_cpu", 'package policy\ntrust_claims := {"hardware": 97}')
    with pytest.raises(EvidenceError, match="sampledevice") as caught:
        await service.appraise(request(devices=True, additional={Tee.SAMPLE_DEVICE: {}}))
    checks = [finding.check for finding in caught.value.findings]
    assert checks == ["sampledevice.evidence", "cpu0.hardware"]


@pytest.mark.parametrize(
    ("params", "checks"),
    [
        ("", ["tee"]),
        ({}, ["tee"]),
        ({"supported-hash-algorithms": ["sha256", "sha512"]}, ["tee"]),
        ({"supported-hash-algorithms": ["sha384"]}, ["tee", "supported-hash-algorithms"]),
        ({"supported-hash-algorithms": 5}, ["tee"]),
    ],
)
async def test_se_is_told_before_it_makes_evidence(
    make: Make, params: Any, checks: list[str]
) -> None:
    with pytest.raises(EvidenceError, match="no verifier") as caught:
        await make().demand(Tee.SE, params)
    assert [finding.check for finding in caught.value.findings] == checks


async def test_hashes_are_nobody_else_s_business(make: Make) -> None:
    for tee in (Tee.SAMPLE, Tee.SNP, Tee.TDX):
        announced = {"supported-hash-algorithms": ["md5"], tee.value: {"also": "this"}}
        assert await make().demand(tee, announced) is None


async def test_claims_of_megabytes_are_refused(make: Make) -> None:
    large = request(evidence={**bound(RUNTIME_DATA), "svn": "x" * 2**20})
    with pytest.raises(TooLargeError):
        await make().appraise(large)


async def test_unknown_tee(make: Make) -> None:
    with pytest.raises(EvidenceError, match="hygondcu"):
        await make().appraise(request(tee=Tee.HYGON_DCU))


def test_secrets_in_init_data_show_by_their_digests() -> None:
    def digest(text: str) -> str:
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    text = init_data.build(
        {
            "agent-key.pem": "PRIVATE",
            "agent-cert.pem": "public",
            "agent.env": 'AGENT_CVM_ID="a=\\"b"\nAWS_SECRET_ACCESS_KEY="s3=cret"\n',
            "other.env": 'AGENT_CVM_ID="a=b"\nAWS_SECRET_ACCESS_KEY="s3=cret"\nAGENT_CERTS_TOKEN=t\n',
            "aa.toml": '[token_configs.kbs]\nurl = "u"\nAdminPassword = "p"\n',
            "cdh.toml": '[[kbc]]\naccess_token = ["t"]\nport = 1\n',
            "policy.rego": 'policy_data := {"token": "of the policy"}',
        }
    )
    secret = digest('"s3=cret"')
    assert init_claims(InitDocument.parse(text)) == {
        "agent-key.pem": digest("PRIVATE"),
        "agent-cert.pem": "public",
        "agent.env": {"AGENT_CVM_ID": 'a="b', "AWS_SECRET_ACCESS_KEY": digest("s3=cret")},
        "other.env": (
            f'AGENT_CVM_ID="a=b"\nAWS_SECRET_ACCESS_KEY={secret}\nAGENT_CERTS_TOKEN={digest("t")}\n'
        ),
        "aa.toml": {"token_configs": {"kbs": {"url": "u", "AdminPassword": digest("p")}}},
        "cdh.toml": {"kbc": [{"access_token": [digest("t")], "port": 1}]},
        "agent_policy_claims": {"token": "of the policy"},
    }


async def test_init_data_claims(make: Make) -> None:
    shown = InitData("toml", INIT_DATA)
    appraisal = await make().appraise(request(init_data=shown))
    submod = claims_of(appraisal.token)["submods"]["cpu0"]
    digest = hashlib.sha256(INIT_DATA.encode()).digest()
    evidence = submod[EVIDENCE]
    assert evidence["init_data"] == base64.b64encode(digest).decode()
    assert evidence["init_data_claims"] == {
        "aa.toml": {"url": "http://127.0.0.1"},
        "cdh.toml": {"image": {"extra_root_certificates": ["cert"], "when": "2026-11-23"}},
        "broken": "= =",
        "agent_policy_claims": {
            "containers": [{"OCI": {"Process": {"Args": ["a", "b"], "User": {"UID": 7}}}}]
        },
    }
    assert submod["ear.trustee.identifiers"] == {"validated": {"container_uids": [7]}}
    assert list(evidence) == sorted(evidence)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
async def test_init_data_in_json(make: Make, algorithm: str) -> None:
    data = {"aa.toml": 'url = "x"', "note": "y"}
    body = json.dumps({"version": "0.1.0", "algorithm": algorithm, "data": data}, indent=1)
    appraisal = await make().appraise(request(init_data=InitData("json", body)))
    evidence = claims_of(appraisal.token)["submods"]["cpu0"][EVIDENCE]
    digest = hashlib.new(algorithm, body.encode()).digest()
    assert evidence["init_data"] == base64.b64encode(digest).decode()
    assert evidence["init_data_claims"] == {"aa.toml": {"url": "x"}, "note": "y"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x",
        'version = "1"',
        INIT_DATA.replace("sha256", "md5"),
        INIT_DATA.replace('"= ="', "5"),
        "\ud800",
    ],
)
async def test_malformed_init_data(make: Make, body: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        await make().appraise(request(init_data=InitData("toml", body)))
    assert caught.value.findings
    with pytest.raises(EvidenceError, match="init data"):
        await make().appraise(request(init_data=InitData("json", "{}")))


@pytest.mark.parametrize(
    "policy_data",
    ["{" + '"a":' + "[" * 900 + "]" * 900 + "}", '{"a": 1e999}', '{"a": NaN}', "{", '{} "x"'],
)
async def test_guest_policy_that_is_no_plain_json_stays_text(make: Make, policy_data: str) -> None:
    text = f"package agent_policy\npolicy_data := {policy_data}"
    body = f'version = "1"\nalgorithm = "sha256"\n[data]\n"policy.rego" = {json.dumps(text)}'
    appraisal = await make().appraise(request(init_data=InitData("toml", body)))
    shown = claims_of(appraisal.token)["submods"]["cpu0"][EVIDENCE]["init_data_claims"]
    assert shown == {"policy.rego": text}


async def test_short_tokens(make: Make) -> None:
    appraisal = await make(verbose_token=False).appraise(request(devices=True))
    submod = claims_of(appraisal.token)["submods"]["cpu0"]
    assert set(submod[EVIDENCE]["runtime_data_claims"]) == {"nonce", "tee-pubkey"}


def message(values: JsonObject, **changes: Any) -> JsonObject:
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return {"version": "0.1.0", "type": "sample", "payload": payload} | changes


SVN_POLICY = """package policy
default hardware := 97
hardware := 2 if input.sample.svn in query_reference_value("svn")
trust_claims := {"hardware": hardware}
"""


CONFLICT = """package policy
trust_claims := {"hardware": 2} if input.sample
trust_claims := {"hardware": 3} if input.report_data
"""
EXTENSION = """package policy
trust_claims := {"hardware": 2}
extensions := [{"name": "ear.status", "key": 1, "value": "affirming"}]
"""


async def status(service: AttestationService) -> tuple[str, list[str]]:
    appraisal = await service.appraise(request())
    shown = claims_of(appraisal.token)["submods"]["cpu0"]["ear.status"]
    # Which statements of the policy did not hold comes after what the policy says.
    checks = [finding.check for finding in appraisal.findings]
    return shown, [*dict.fromkeys(checks)]


async def test_operators_policy_and_reference_values(make: Make) -> None:
    service = make()
    await service.set_policy("default_cpu", SVN_POLICY)
    assert await service.get_policy("default_cpu") == SVN_POLICY
    assert await status(service) == ("contraindicated", ["cpu0.hardware", "cpu0.policy"])
    await service.register_reference_values(message({"svn": ["0"], "other": {"a": 1}}))
    assert await status(service) == ("contraindicated", ["cpu0.hardware", "cpu0.policy"])
    await service.register_reference_values(message({"svn": ["0", "1"]}))
    assert await status(service) == ("affirming", [])
    assert await service.get_reference_value("svn") == ["0", "1"]
    assert await service.get_reference_value("other") == {"a": 1}
    assert (await make().appraise(request())).findings == ()


async def test_reference_values_expire(make: Make, store: Store, clock: Clock) -> None:
    service = make()
    await service.set_policy("default_cpu", SVN_POLICY)
    await service.register_reference_values(message({"svn": ["1"]}))
    stored = await store.get(Namespace.REFERENCE_VALUE, "svn")
    assert stored is not None
    assert json.loads(stored) == {
        "version": "0.1.0",
        "name": "svn",
        "expiration": "2027-11-23T12:00:00Z",
        "value": ["1"],
    }
    # Also where the store itself knows of no end.
    await store.put(Namespace.REFERENCE_VALUE, "kept", stored.replace(b'"svn"', b'"kept"'))
    clock.now = START + dt.timedelta(days=366)
    for name in ("svn", "kept"):
        with pytest.raises(NotFoundError):
            await service.get_reference_value(name)
    appraisal = await service.appraise(request())
    assert [finding.check for finding in appraisal.findings] == ["cpu0.policy"]


PINNED = """package policy
import rego.v1
trust_claims := {"executables": executables}
default executables := 33
executables := 3 if query_reference_value("pin") == null
executables := 3 if input.sample.svn in query_reference_value("pin")
"""


async def test_what_has_expired_is_not_what_was_never_registered(make: Make, clock: Clock) -> None:
    """Or a year later a policy would ask for less, as the default one for registered PCRs."""
    service = make()
    await service.set_policy("default_cpu", PINNED)
    assert await status(service) == ("affirming", [])
    await service.register_reference_values(message({"pin": ["another"], "other": 1}))
    assert (await status(service))[0] == "warning"
    clock.now = START + dt.timedelta(days=366)
    for each in (service, make()):  # also after a restart
        appraisal = await each.appraise(request())
        assert {finding.check for finding in appraisal.findings} == {"cpu0.policy"}
        assert "reference value pin has expired" in appraisal.findings[0].problem
        assert (await status(each))[0] == "contraindicated"
    listed = await service.list_reference_values()
    assert [each.name for each in listed] == ["other", "pin"]
    await service.delete_reference_value("other")
    await service.register_reference_values(message({"pin": ["1"]}))
    assert await status(service) == ("affirming", [])
    clock.now += dt.timedelta(days=366)
    await service.delete_reference_value("pin")
    assert await status(service) == ("affirming", [])
    assert await service.list_reference_values() == ()


async def test_leap_day(make: Make, store: Store, clock: Clock) -> None:
    clock.now = dt.datetime(2028, 2, 29, 1, 2, 3, 4, tzinfo=dt.UTC)
    await make().register_reference_values(message({"a": 1}))
    stored = await store.get(Namespace.REFERENCE_VALUE, "a")
    assert stored is not None
    assert json.loads(stored)["expiration"] == "2029-02-28T01:02:03Z"


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"payload": "e30="},
        message({}, type="swid"),
        message({}, type="corim"),
        message({}, version="0.2.0"),
        message({}, payload="e30"),
        message({}, payload="!"),
        message({}, payload=base64.b64encode(b"[]").decode()),
        message({}, payload=base64.b64encode(b"\xff").decode()),
        message({}, payload=1),
        message({"": 1}),
        message({"a\nb": 1}),
        message({"a" * 600: 1}),
        message({"a": 2**70}),
    ],
)
async def test_malformed_reference_values(make: Make, store: Store, bad: JsonObject) -> None:
    with pytest.raises(FormatError):
        await make().register_reference_values(bad)
    assert await store.keys(Namespace.REFERENCE_VALUE) == []


async def test_no_more_values_than_policies_can_be_given(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    monkeypatch.setattr(reference_values, "MAX_COUNT", 2)
    await service.register_reference_values(message({"a": 1, "b": 1}))
    with pytest.raises(TooLargeError):
        await service.register_reference_values(message({"c": 1}))
    await service.register_reference_values(message({"b": 2}))
    monkeypatch.setattr(reference_values, "MAX_BYTES", 1000)
    with pytest.raises(TooLargeError):
        await service.register_reference_values(message({"b": "x" * 1000}))
    assert await service.get_reference_value("b") == 2


async def test_one_bad_value_stores_none(make: Make, store: Store) -> None:
    with pytest.raises(FormatError):
        await make().register_reference_values(message({"good": 1, "bad": 2**70}))
    assert await store.keys(Namespace.REFERENCE_VALUE) == []


async def test_reference_value_names_of_trustee(make: Make) -> None:
    service = make()
    await service.register_reference_values(message({"rvps:///a b/c:1": [1]}))
    assert await service.get_reference_value("rvps:///a b/c:1") == [1]


@pytest.mark.parametrize("policy_id", ["", "../x", "a/b", "a b", ".x", "a" * 200, "a\n"])
async def test_impossible_policy_ids(make: Make, policy_id: str) -> None:
    with pytest.raises(FormatError):
        await make().set_policy(policy_id, SVN_POLICY)


async def test_policy_that_does_not_parse_is_not_stored(make: Make, store: Store) -> None:
    with pytest.raises(FormatError):
        await make().set_policy("default_cpu", "package policy\nallow if {")
    assert await store.keys(Namespace.ATTESTATION_POLICY) == []


async def test_defaults_are_not_stored(make: Make, store: Store) -> None:
    service = make()
    await service.appraise(request())
    assert await store.keys(Namespace.ATTESTATION_POLICY) == []
    assert await service.policy_ids() == ["default_cpu", "default_gpu"]
    assert await service.get_policy("default_cpu") == defaults.text("default_cpu")
    with pytest.raises(NotFoundError):
        await service.get_policy("default_dcu")


@pytest.mark.parametrize(
    "policy",
    [
        "package policy\ntrust_claims := 5",
        "package policy\ntrust_claims if input.nothing",
        "package policy\ntrust_claims := {}",
        'package policy\ntrust_claims := {"hardware": 2, "nonsense": 2}',
        'package policy\ntrust_claims := {"hardware": 300}',
        CONFLICT,
        EXTENSION,
    ],
)
async def test_strange_policies_affirm_nothing(make: Make, policy: str) -> None:
    service = make()
    await service.set_policy("default_cpu", policy)
    shown, findings = await status(service)
    assert shown == "contraindicated"
    assert findings


TWO_WAYS = """package policy
default hardware := 97
hardware := 2 if input.sample.svn == "1"
hardware := 2 if input.sample.svn == "2"
trust_claims := {"hardware": hardware}
"""


async def test_of_what_is_affirmed_nothing_is_explained(make: Make) -> None:
    service = make()
    await service.set_policy("default_cpu", TWO_WAYS)
    assert await status(service) == ("affirming", [])


NO_CLAIMS = "package policy\ntrust_claims := {} if input.nothing"
WORSE_CLAIMS = NO_CLAIMS + '\ntrust_claims := {"hardware": 97} if not input.nothing'


@pytest.mark.parametrize("policy", [NO_CLAIMS, WORSE_CLAIMS])
async def test_why_claims_are_as_they_are_is_explained_once(make: Make, policy: str) -> None:
    service = make()
    await service.set_policy("default_cpu", policy)
    appraisal = await service.appraise(request())
    (said,) = [each.problem for each in appraisal.findings if each.check == "cpu0.policy"]
    assert said == "line 2, rule trust_claims is undefined: input.nothing"


async def test_stored_policy_that_no_longer_compiles(make: Make, store: Store) -> None:
    await store.put(Namespace.ATTESTATION_POLICY, "default_cpu", b"package policy\nallow if {")
    assert await status(make()) == ("contraindicated", ["cpu0.policy"])


async def test_operator_policy_cannot_hide_that_it_is_insecure(make: Make) -> None:
    service = make()
    await service.set_policy("default_cpu", 'package policy\ntrust_claims := {"hardware": 2}')
    appraisal = await service.appraise(request())
    assert claims_of(appraisal.token)["submods"]["cpu0"][INSECURE] == ["sample"]


async def test_challenges_differ(make: Make) -> None:
    nonces = {await make().challenge() for _ in range(20)}
    assert len(nonces) == 20
    assert {len(base64.b64decode(nonce)) for nonce in nonces} == {32}


async def test_policies_are_deleted(make: Make) -> None:
    service = make()
    with pytest.raises(NotFoundError):
        await service.delete_policy("default_cpu")
    await service.set_policy("default_cpu", 'package policy\ntrust_claims := {"hardware": 97}')
    assert (await status(service))[0] == "contraindicated"
    await service.delete_policy("default_cpu")
    assert await service.get_policy("default_cpu") == defaults.text("default_cpu")
    assert (await status(service))[0] == "affirming"


async def test_reference_values_are_listed_and_deleted(make: Make, clock: Clock) -> None:
    service = make()
    name = "rvps:///a b/c:1"
    await service.register_reference_values(message({name: [1], "svn": "0"}))
    listed = await service.list_reference_values()
    assert [(each.name, each.value) for each in listed] == [(name, [1]), ("svn", "0")]
    assert {each.expiration for each in listed} == {"2027-11-23T12:00:00Z"}
    await service.delete_reference_value(name)
    with pytest.raises(NotFoundError):
        await service.get_reference_value(name)
    with pytest.raises(NotFoundError):
        await service.delete_reference_value(name)
    clock.now = START + dt.timedelta(days=366)
    assert [each.name for each in await service.list_reference_values()] == ["svn"]
    await service.delete_reference_value("svn")
    assert await service.list_reference_values() == ()
