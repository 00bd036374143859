# SPDX-License-Identifier: Apache-2.0
"""The attestation service on its own: Trustee's gRPC, and a key broker that uses it."""

import base64
import hashlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
import trustme
from _attestation import attestation_server, http_of
from _certificates import Party
from _kbs import InProcessKbs, admin_pair, kbs_in_process
from _programs import Running, running
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cocos._clock import system_clock
from cocos._types import JsonObject
from cocos.attesters.sample import InsecureSampleAttester
from cocos.clients.attestation_service import AttestationServiceClient, Place
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto import admin_jwt, base64url, jwk, jwt
from cocos.crypto.signing import SigningKey
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CocosError,
    ConfigError,
    NotFoundError,
    ProtocolError,
)
from cocos.host import process
from cocos.transport.rpc import Service, serve
from cocos.wire._generated import attestation_keys_pb2 as keys_pb
from cocos.wire._generated import attestation_keys_pb2_grpc as keys_grpc
from cocos.wire._generated import attestation_pb2 as pb
from cocos.wire._generated import attestation_pb2_grpc as pb_grpc
from cocos.wire._generated import reference_pb2 as rv
from cocos.wire._generated import reference_pb2_grpc as rv_grpc
from cocos.wire.attestation_rpc import FINDINGS, decode_findings
from cocos.wire.json import canonical
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri, Tee

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PATH = ResourcePath.parse("default/key/1")
URI = ResourceUri.parse(PATH.uri)
SECRET = bytes(range(32))
RUNTIME: JsonObject = {"nonce": "n", "tee-pubkey": TeeKeyPair.generate().public_jwk()}
SVN_POLICY = """package policy
import rego.v1
default hardware := 97
hardware := 2 if input.sample.svn in query_reference_value("svn")
trust_claims := {"hardware": hardware}
"""


class Peer:
    """Who speaks Trustee's protocol to the server."""

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel
        self.attestation = pb_grpc.AttestationServiceStub(channel)
        self.values = rv_grpc.ReferenceValueProviderServiceStub(channel)

    async def token(self, request: pb.AttestationRequest) -> JsonObject:
        answer = await self.attestation.AttestationEvaluate(request)
        token = answer.attestation_token
        return jwk.from_jwk(jwt.header_of(token)["jwk"], "the key").verify(token)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("as")
    arguments = ("--socket", f"unix:{folder}/as.sock", "--storage", folder / "storage")
    async with running(
        "grpc-as", *arguments, "--insecure-allow-sample", "--http-socket", "127.0.0.1:0"
    ) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peer(server: Running) -> AsyncIterator[Peer]:
    async with aio.insecure_channel(server.address) as channel:
        yield Peer(channel)


def encoded(value: Any) -> str:
    return base64url.encode(json.dumps(value).encode())


def individual(
    report_data: bytes, tee: str = "sample", **members: Any
) -> pb.IndividualAttestationRequest:
    evidence = {"svn": "1", "report_data": base64.b64encode(report_data).decode()}
    return pb.IndividualAttestationRequest(tee=tee, evidence=encoded(evidence), **members)


def structured(name: str = "") -> pb.IndividualAttestationRequest:
    digest = hashlib.new(name or "sha384", canonical(RUNTIME)).digest()
    return individual(
        digest,
        structured_runtime_data=json.dumps(RUNTIME, indent=2),
        runtime_data_hash_algorithm=name,
    )


def asked(*requests: pb.IndividualAttestationRequest, **more: Any) -> pb.AttestationRequest:
    return pb.AttestationRequest(verification_requests=requests, **more)


def evidence_of(claims: JsonObject, name: str = "cpu0") -> Any:
    return claims["submods"][name]["ear.veraison.annotated-evidence"]


async def refused(call: Awaitable[Any]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("name", ["", "sha256", "sha384", "sha512"])
async def test_structured_runtime_data(peer: Peer, name: str) -> None:
    claims = await peer.token(asked(structured(name)))
    assert evidence_of(claims)["runtime_data_claims"] == RUNTIME
    assert claims["submods"]["cpu0"]["ear.appraisal-policy-id"] == "default"


async def test_raw_runtime_data(peer: Peer) -> None:
    raw = bytes(range(48))
    claims = await peer.token(asked(individual(raw, raw_runtime_data=base64url.encode(raw))))
    assert evidence_of(claims)["runtime_data_claims"] is None


async def test_devices_and_init_data(peer: Peer) -> None:
    primary, device = structured(), structured("sha256")
    toml = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"x" = "y"\n'
    primary.init_data_toml = toml
    device.tee = "sampledevice"
    claims = await peer.token(asked(primary, device))
    assert set(claims["submods"]) == {"cpu0", "gpu0"}
    digest = hashlib.sha256(toml.encode()).digest()
    assert evidence_of(claims)["init_data"] == base64.b64encode(digest).decode()
    assert evidence_of(claims)["init_data_claims"] == {"x": "y"}
    primary.init_data_digest = base64url.encode(digest)
    shown = evidence_of(await peer.token(asked(primary)))
    assert shown["init_data"] == base64.b64encode(digest).decode()
    assert shown["init_data_claims"] is None


async def test_policies_by_their_id(peer: Peer) -> None:
    text = base64url.encode(b'package policy\ntrust_claims := {"executables": 3}\n')
    await peer.attestation.SetAttestationPolicy(
        pb.SetPolicyRequest(policy_id="mine_cpu", policy=text)
    )
    claims = await peer.token(asked(structured(), policy_ids=["mine", "default"]))
    submod = claims["submods"]["cpu0"]
    assert submod["ear.appraisal-policy-id"] == "mine"
    assert submod["ear.trustworthiness-vector"] == {"executables": 3}
    claims = await peer.token(asked(structured(), policy_ids=["absent"]))
    assert claims["submods"]["cpu0"]["ear.status"] == "contraindicated"
    for policy in ("!", base64url.encode(b"no rego"), base64url.encode(b"\xff")):
        bad = pb.SetPolicyRequest(policy_id="mine_cpu", policy=policy)
        error = await refused(peer.attestation.SetAttestationPolicy(bad))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_evidence_that_does_not_hold(peer: Peer) -> None:
    stale = individual(bytes(48), structured_runtime_data=json.dumps(RUNTIME))
    error = await refused(peer.attestation.AttestationEvaluate(asked(stale)))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    trailing = dict(error.trailing_metadata() or ())
    data = trailing[FINDINGS]
    assert isinstance(data, bytes)
    assert [finding.check for finding in decode_findings(data)] == ["sample.report_data"]


@pytest.mark.parametrize("tee", Tee)
async def test_every_tee_is_known_by_its_name(peer: Peer, tee: Tee) -> None:
    request = structured()
    request.tee = tee.value
    if tee is Tee.SAMPLE:
        assert await peer.token(asked(request))
    else:
        error = await refused(peer.attestation.AttestationEvaluate(asked(request)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def changed(change: Callable[[pb.IndividualAttestationRequest], object]) -> pb.AttestationRequest:
    request = structured()
    change(request)
    return asked(request)


MALFORMED = {
    "nobody": asked(),
    "too many": asked(*[structured()] * 65),
    "other tee": changed(lambda r: setattr(r, "tee", "Sample")),
    "no tee": changed(lambda r: setattr(r, "tee", "")),
    "unbound": changed(lambda r: r.ClearField("structured_runtime_data")),
    "runtime data is no object": changed(lambda r: setattr(r, "structured_runtime_data", "[]")),
    "runtime data is no JSON": changed(lambda r: setattr(r, "structured_runtime_data", "{")),
    "raw is padded": changed(lambda r: setattr(r, "raw_runtime_data", "AA==")),
    "md5": changed(lambda r: setattr(r, "runtime_data_hash_algorithm", "md5")),
    "evidence is no base64": changed(lambda r: setattr(r, "evidence", "!")),
    "evidence is no JSON": changed(lambda r: setattr(r, "evidence", base64url.encode(b"{"))),
    "digest is no base64": changed(lambda r: setattr(r, "init_data_digest", "!")),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_requests(peer: Peer, what: str) -> None:
    error = await refused(peer.attestation.AttestationEvaluate(MALFORMED[what]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("raw", [b"", bytes(31)])
async def test_runtime_data_that_is_too_short_to_be_fresh(peer: Peer, raw: bytes) -> None:
    request = individual(raw, raw_runtime_data=base64url.encode(raw))
    error = await refused(peer.attestation.AttestationEvaluate(asked(request)))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_challenges(peer: Peer) -> None:
    nonces = set()
    for inner in ({"tee": "sample", "tee_params": ""}, {"tee": "tpm", "tee_params": "{}"}) * 2:
        answer = await peer.attestation.GetAttestationChallenge(pb.ChallengeRequest(inner=inner))
        nonces.add(answer.attestation_challenge)
        assert not answer.params
    assert {len(nonce) for nonce in nonces} == {44}
    assert len(nonces) == 4
    for inner in ({}, {"tee": "x"}, {"tee": "sample", "tee_params": "{"}):
        error = await refused(
            peer.attestation.GetAttestationChallenge(pb.ChallengeRequest(inner=inner))
        )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_reference_values(peer: Peer) -> None:
    name = "rvps:///a b/c:1"
    payload = base64.b64encode(json.dumps({name: [1, "x"], "b": 1.5}).encode()).decode()
    message = json.dumps({"version": "0.1.0", "type": "sample", "payload": payload})
    await peer.values.RegisterReferenceValue(rv.ReferenceValueRegisterRequest(message=message))
    found = await peer.values.QueryReferenceValue(
        rv.ReferenceValueQueryRequest(reference_value_id=name)
    )
    assert json.loads(found.reference_value_results) == [1, "x"]
    # What Trustee's pools ask for to see whether a provider lives.
    for unknown in ("__healthcheck__", "", "svn "):
        answer = await peer.values.QueryReferenceValue(
            rv.ReferenceValueQueryRequest(reference_value_id=unknown)
        )
        assert not answer.HasField("reference_value_results")
    for bad in ("", "[]", json.dumps({"type": "swid", "payload": payload})):
        request = rv.ReferenceValueRegisterRequest(message=bad)
        error = await refused(peer.values.RegisterReferenceValue(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_and_reflection(peer: Peer) -> None:
    names = {
        "attestation.AttestationService",
        "reference.ReferenceValueProviderService",
        "cocos.attestation.v1.TokenKeys",
    }
    health = health_pb2_grpc.HealthStub(peer.channel)
    for name in ("", *names):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(peer.channel).ServerReflectionInfo(
        iter([listing])
    )
    async for answer in call:
        listed = {service.name for service in answer.list_services_response.service}
        assert names < listed
        break


async def test_keys(server: Running, peer: Peer) -> None:
    answer = await peer.attestation.AttestationEvaluate(asked(structured()))
    shown = await keys_grpc.TokenKeysStub(peer.channel).GetKeySet(keys_pb.GetKeySetRequest())
    keys = jwk.parse_set(shown.jwks.encode(), "the keys")
    assert jwk.verify_with_any(keys, answer.attestation_token)
    url = http_of(server)
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/.well-known/jwks.json")).json() == json.loads(shown.jwks)
        assert (await http.get(f"{url}/healthz")).status_code == 200


async def test_a_key_broker_and_its_attestation_service(server: Running, tmp_path: Path) -> None:
    private, public = admin_pair()
    (tmp_path / "admin.pub").write_bytes(public)
    arguments = ("--storage", tmp_path / "kbs", "--auth-public-key", tmp_path / "admin.pub")
    async with running(
        "kbs",
        *arguments,
        "--insecure-http",
        "--socket",
        "127.0.0.1:0",
        "--attestation",
        server.address,
    ) as kbs:
        token = admin_jwt.mint(private, now=system_clock())
        admin = KbsAdmin(kbs.address, token=token)
        async with admin, KbsClient(kbs.address, InsecureSampleAttester()) as guest:
            await admin.set_resource(PATH, SECRET)
            assert await guest.get_resource(URI) == SECRET
            # Its rules are those of the attestation service.
            await admin.set_attestation_policy("default_cpu", SVN_POLICY)
            await admin.register_reference_values({"svn": ["2"]})
            assert await admin.get_reference_value("svn") == ["2"]
            with pytest.raises(NotFoundError):
                await admin.get_reference_value("absent")
            with pytest.raises(CocosError, match="policy"):
                await admin.set_attestation_policy("default_cpu", "not Rego")
            # What it doubts and what it refuses comes through gRPC, too.
            doubtful = 'package policy\ntrust_claims := {} if input.tpm.pcr4 == "a"\n'
            (warning,) = await admin.set_attestation_policy("doubtful_cpu", doubtful)
            assert warning == "line 2: there is no input.tpm.pcr4: did you mean pcr04?"
            unbound = "package policy\ntrust_claims := {} if not f(1)\nf(x) if { some i; i > x }\n"
            with pytest.raises(CocosError, match="line 3: var i is unsafe"):
                await admin.set_attestation_policy("default_cpu", unbound)
        async with KbsClient(kbs.address, InsecureSampleAttester()) as guest:
            with pytest.raises(AccessDeniedError) as denied:
                await guest.get_resource(URI)
        async with KbsAdmin(kbs.address, token=token) as admin:
            found = await admin.explain((denied.value.hint or "").rpartition(" ")[2])
            checks = {finding["check"] for finding in found["findings"]}
            assert "cpu0.hardware" in checks
            await admin.register_reference_values({"svn": ["1", "2"]})
        async with KbsClient(kbs.address, InsecureSampleAttester()) as guest:
            assert await guest.get_resource(URI) == SECRET
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{kbs.address}/kbs/v0/attestation-policy")
            assert answer.status_code == 401
            for path in ("reference-value", "attestation-policy", "attestation-policy/default_cpu"):
                answer = await http.get(
                    f"{kbs.address}/kbs/v0/{path}", headers={"Authorization": f"Bearer {token}"}
                )
                assert answer.status_code == 501
            assert (await http.get(f"{kbs.address}/.well-known/jwks.json")).status_code == 404


async def explained(kbs: InProcessKbs, error: CocosError) -> set[str]:
    async with kbs.admin() as admin:
        found = await admin.explain((error.hint or "").rpartition(" ")[2])
    return {finding["check"] for finding in found["findings"]}


async def test_refusals_are_explained_across_the_two(tmp_path: Path) -> None:
    async with (
        attestation_server(tmp_path) as address,
        kbs_in_process(tmp_path / "kbs", attestation=address) as kbs,
        kbs.guest() as guest,
    ):
        with pytest.raises(AuthenticationError, match="--insecure-allow-sample") as refusal:
            await guest.get_resource(URI)
        assert await explained(kbs, refusal.value) == {"tee"}


async def test_an_attestation_service_whose_keys_nobody_here_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens are refused when they come, not when a guest waits for a resource."""
    keys = {"keys": [SigningKey.generate().public_jwk()]}
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    async with attestation_server(tmp_path, insecure_allow_sample=True) as address:
        # As if it were reached in clear over a network, where anybody could show keys.
        elsewhere = Place(address, None, is_private=False)
        monkeypatch.setattr(Place, "parse", lambda *_: elsewhere)
        with pytest.raises(ConfigError, match="nobody is trusted"):
            async with kbs_in_process(tmp_path / "kbs", attestation="http://192.0.2.1"):
                pass
        async with (
            kbs_in_process(
                tmp_path / "kbs",
                attestation="http://192.0.2.1",
                trusted_jwk_sets=(str(tmp_path / "jwks.json"),),
            ) as kbs,
            kbs.guest() as guest,
        ):
            with pytest.raises(CocosError, match="not accepted here"):
                await guest.attest()
        async with AttestationServiceClient(elsewhere) as client:
            with pytest.raises(ConfigError, match="without TLS"):
                await client.key_set()


async def stolen(token: str, *_: object) -> pb.AttestationResponse:
    return pb.AttestationResponse(attestation_token=token)


async def test_a_token_about_another_machine(server: Running, peer: Peer, tmp_path: Path) -> None:
    answer = await peer.attestation.AttestationEvaluate(asked(structured()))
    shown = await keys_grpc.TokenKeysStub(peer.channel).GetKeySet(keys_pb.GetKeySetRequest())
    (tmp_path / "jwks.json").write_text(shown.jwks)
    handler = grpc.unary_unary_rpc_method_handler(
        partial(stolen, answer.attestation_token),
        pb.AttestationRequest.FromString,
        pb.AttestationResponse.SerializeToString,
    )
    name = "attestation.AttestationService"
    methods = grpc.method_handlers_generic_handler(name, {"AttestationEvaluate": handler})
    thief = Service(name, lambda server: server.add_generic_rpc_handlers((methods,)))
    async with (
        serve(f"unix:{tmp_path}/thief.sock", [thief]) as address,
        kbs_in_process(
            tmp_path / "kbs",
            attestation=address,
            trusted_jwk_sets=(str(tmp_path / "jwks.json"),),
        ) as kbs,
        kbs.guest() as guest,
    ):
        kbs.now = system_clock()
        with pytest.raises(CocosError, match="about another machine"):
            await guest.attest()


async def test_an_attestation_service_that_is_away(tmp_path: Path) -> None:
    place = f"unix:{tmp_path}/nobody.sock"
    async with kbs_in_process(tmp_path / "kbs", attestation=place) as kbs, kbs.guest() as guest:
        with pytest.raises(CocosError, match="does not answer"):
            await guest.attest()


async def test_tls_both_ways(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, ca in {"server": authority, "client": authority, "thief": stranger}.items():
        issued = ca.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    arguments: list[str | Path] = ["--socket", "127.0.0.1:0", "--storage", tmp_path / "storage"]
    arguments += ["-t", tmp_path / "server.pem", "-k", tmp_path / "server.key"]
    arguments += ["--http-socket", "127.0.0.1:0", "--client-ca", tmp_path / "ca.pem"]
    async with running("grpc-as", *arguments, "--insecure-allow-sample") as found:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with httpx.AsyncClient(verify=trusted, base_url=http_of(found)) as http:
            assert (await http.get("/.well-known/jwks.json")).status_code == 200
            assert (await http.post("/attestation", json={})).status_code == 404
        ours: dict[str, Any] = {
            "attestation": f"https://{found.address}",
            "attestation_ca": tmp_path / "ca.pem",
        }
        for name, works in {"client": True, "thief": False, "": False}.items():
            shown: dict[str, Any] = {}
            if name:
                shown["attestation_certificate"] = tmp_path / f"{name}.pem"
                shown["attestation_key"] = tmp_path / f"{name}.key"
            async with kbs_in_process(tmp_path / f"kbs{name}", **ours, **shown) as kbs:
                kbs.now = system_clock()
                async with kbs.guest() as guest:
                    if works:
                        assert await guest.attest()
                    else:
                        with pytest.raises(CocosError):
                            await guest.attest()


async def test_passports_only(server: Running, tmp_path: Path) -> None:
    url = http_of(server)
    async with httpx.AsyncClient() as http:
        keys = (await http.get(f"{url}/.well-known/jwks.json")).json()
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    async with (
        kbs_in_process(tmp_path / "issuer", attestation=server.address) as issuer,
        kbs_in_process(
            tmp_path / "party",
            attestation="none",
            trusted_jwk_sets=(str(tmp_path / "jwks.json"),),
        ) as party,
    ):
        issuer.now = party.now = system_clock()
        async with issuer.guest() as guest:
            session = await guest.session()
        async with party.admin() as admin:
            await admin.set_resource(PATH, SECRET)
            for call in (
                admin.set_attestation_policy("default_cpu", SVN_POLICY),
                admin.register_reference_values({"a": 1}),
            ):
                with pytest.raises(NotFoundError, match="no attestation service"):
                    await call
        async with party.guest() as guest:
            with pytest.raises((ProtocolError, NotFoundError), match="no attestation service"):
                await guest.attest()
        async with httpx.AsyncClient(
            transport=party.transport(), base_url="http://kbs.test:8080"
        ) as http:
            answer = await http.get(
                f"/kbs/v0/resource/{PATH}", headers={"Authorization": f"Bearer {session.token}"}
            )
        assert answer.status_code == 200, answer.text


def as_config(folder: Path) -> JsonObject:
    """Trustee's file, with every section that it documents."""
    root = Party("root").certify(ca=True)
    leaf = Party("signer").certify(root)
    (folder / "key.pem").write_bytes(leaf.key_pem)
    (folder / "chain.pem").write_bytes(leaf.pem + root.pem)
    return {
        "work_dir": "/opt/confidential-containers/attestation-service",
        "policy_engine": "opa",
        "rvps_config": {"type": "BuiltIn", "storage_type": "LocalFs"},
        "attestation_token_broker": {
            "duration_min": 7,
            "issuer_name": "test-issuer",
            "signer": {"key_path": str(folder / "key.pem"), "cert_path": str(folder / "chain.pem")},
        },
        "verifier_config": {"snp_verifier": {}},
        "storage_backend": {
            "storage_type": "LocalFs",
            "backends": {"local_fs": {"dir_path": str(folder / "storage")}},
        },
    }


async def test_a_file_of_trustee_s_grpc_as(tmp_path: Path) -> None:
    file = tmp_path / "as-config.json"
    file.write_text(json.dumps(as_config(tmp_path)))
    flags = ("--socket", f"unix:{tmp_path}/as.sock", "--insecure-allow-sample")
    async with (
        running("grpc-as", "--config-file", file, *flags) as program,
        aio.insecure_channel(program.address) as channel,
    ):
        answer = await Peer(channel).attestation.AttestationEvaluate(asked(structured()))
        header = jwt.header_of(answer.attestation_token)
        claims = jwk.from_jwk(header["jwk"], "the key").verify(answer.attestation_token)
        assert any("work_dir" in line for line in program.log)
    assert len(header["jwk"]["x5c"]) == 2
    assert claims["iss"] == "test-issuer"
    assert claims["exp"] - claims["iat"] == 7 * 60
    assert (tmp_path / "storage" / "cocos.sqlite3").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attestation_token_brokr": {}}, "attestation_token_brokr is not a setting"),
        ({"attestation_token_broker": {"duration": 1}}, "attestation_token_broker.duration"),
        ({"rvps_config": {"type": "GrpcRemote", "address": "a:1"}}, "rvps_config.type"),
        ({"http_socket": 7}, "http_socket"),
    ],
)
async def test_a_file_with_what_grpc_as_does_not_know(
    tmp_path: Path, change: JsonObject, words: str
) -> None:
    file = tmp_path / "as-config.json"
    file.write_text(json.dumps(as_config(tmp_path) | change))
    program = Path(sys.executable).with_name("grpc-as")
    argv: list[str | Path] = [program, "-c", file, "--socket", "127.0.0.1:0"]
    done = await process.run(argv, check=False, timeout=60)
    assert done.exit_status == 78
    assert words in done.stderr.decode()
    assert not (tmp_path / "storage").exists()
