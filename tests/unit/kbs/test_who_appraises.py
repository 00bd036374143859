# SPDX-License-Identifier: Apache-2.0
"""Who appraises for a key broker: what it believes of another server, and what it asks of it."""

import base64
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from _attestation import attestation_server
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio
from structlog.testing import capture_logs

from cocos._clock import system_clock
from cocos.cli.kbs import remote
from cocos.cli.kbs.attestation import _makers, _tpm_authorities, appraiser, service_config
from cocos.cli.kbs.remote import RemoteAttestation, elsewhere
from cocos.clients.attestation_service import AttestationServiceClient, Place
from cocos.clients.cvms import Tls
from cocos.crypto.signing import SigningKey
from cocos.errors import ConfigError, Finding, NotFoundError, ProtocolError, UnsupportedError
from cocos.kbs.config import BUILTIN, NO_ATTESTATION, Settings
from cocos.policy.appraisal import FINDINGS
from cocos.tokens.check import InsecureHeaderKeys, TokenVerifier
from cocos.transport.rpc import Service, serve
from cocos.wire._generated import attestation_keys_pb2 as keys_pb
from cocos.wire._generated import attestation_keys_pb2_grpc as keys_grpc
from cocos.wire.kbs.protocol import Tee


def settings(**more: Any) -> Settings:
    return Settings(insecure_http=True, **more)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[RemoteAttestation]:
    """A real attestation service, as a key broker has it."""
    async with (
        attestation_server(tmp_path) as address,
        elsewhere(settings(attestation=address), clock=system_clock) as (found, _),
    ):
        yield found


class Nobody(AttestationServiceClient):
    """One that must not be asked."""

    async def demand(self, tee: Tee, extra_params: Any) -> None:
        raise AssertionError(tee, extra_params)


@pytest.mark.parametrize("announced", [None, "", [], "tpm", ["tpm"], {}, {"snp": {}}, {"TPM": 1}])
async def test_who_announces_nothing_is_asked_nothing(announced: object) -> None:
    client = Nobody(Place("unix:/nowhere", None, is_private=True))
    found = RemoteAttestation(client, TokenVerifier([InsecureHeaderKeys()]), (), clock=system_clock)
    assert await found.demand(Tee.TPM, announced) is None
    with pytest.raises(AssertionError):
        await found.demand(Tee.TPM, {"tpm": {}})


async def test_reference_values_of_another_server(other: RemoteAttestation) -> None:
    await other.set_reference_value("svn", ["1"], expires=None, new=False, tag=None)
    assert await other.find_reference_value("svn") == (["1"], None)
    later = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    for only in (
        {"expires": later, "new": False, "tag": None},
        {"expires": None, "new": True, "tag": None},
        {"expires": None, "new": False, "tag": "t"},
    ):
        with pytest.raises(UnsupportedError):
            await other.set_reference_value("svn", ["2"], **cast("Any", only))
    assert await other.find_reference_value("svn") == (["1"], None)
    payload = base64.b64encode(b'{"other": ["3"]}').decode()
    message = {"version": "0.1.0", "type": "sample", "payload": payload}
    await other.register_reference_values(message)
    assert await other.find_reference_value("other") == (["3"], None)
    doubtful = "package policy\ntrust_claims := {} if input.tmp\n"
    (warning,) = await other.set_policy("mine_cpu", doubtful)
    assert "input.tmp" in warning
    for refused in (other.get_policy, other.delete_policy, other.list_reference_values):
        with pytest.raises(UnsupportedError):
            await refused("x")


def finding(check: str) -> dict[str, object]:
    return {"check": check, "problem": "p", "actual": "a"}


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({}, ()),
        ({"submods": None}, ()),
        ({"submods": [{}]}, ()),
        ({"submods": {"cpu0": None, "gpu0": []}}, ()),
        ({"submods": {"cpu0": {}}}, ()),
        ({"submods": {"cpu0": {FINDINGS: "no list"}}}, ()),
        ({"submods": {"cpu0": {FINDINGS: [{"check": 1}]}}}, ()),
        (
            {
                "submods": {
                    "cpu0": {FINDINGS: [finding("x"), finding("y")]},
                    "gpu0": {FINDINGS: [finding("w"), 5]},
                    "gpu1": {FINDINGS: [finding("z")]},
                }
            },
            ("cpu0.x", "cpu0.y", "gpu1.z"),
        ),
    ],
)
def test_what_a_token_says_is_taken_as_it_comes(claims: Any, found: tuple[str, ...]) -> None:
    assert tuple(each.check for each in remote._findings(claims)) == found
    assert all(isinstance(each, Finding) for each in remote._findings(claims))


def test_certificates_for_another_server(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "crt").write_bytes(b"certificate")
    (tmp_path / "key").write_bytes(b"key")
    roots = (tmp_path / "ca.pem").read_bytes()
    assert remote._tls(settings()) is None
    for given, expected in (
        ({"attestation_ca": tmp_path / "ca.pem"}, Tls(roots, None, None)),
        ({"attestation_certificate": tmp_path / "crt"}, Tls(None, b"certificate", None)),
        ({"attestation_key": tmp_path / "key"}, Tls(None, None, b"key")),
    ):
        with contextlib.suppress(ConfigError):  # half a pair is refused by the settings
            assert remote._tls(settings(attestation="https://as", **given)) == expected


async def test_in_clear_nobody_tells_us_keys() -> None:
    """Whoever sits between could; the operator has to name them."""
    with capture_logs() as said, pytest.raises(ConfigError, match="nobody is trusted"):
        async with elsewhere(settings(attestation="http://192.0.2.1"), clock=system_clock):
            pass
    (line,) = [each for each in said if each["event"] == "kbs.insecure-attestation-service"]
    assert line["address"] == "192.0.2.1:50004"


class NoKeys(keys_grpc.TokenKeysServicer):
    async def GetKeySet(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return keys_pb.KeySet(jwks='{"keys": []}')


async def test_a_server_without_keys_is_no_server_of_keys(tmp_path: Path) -> None:
    def add(server: aio.Server) -> None:
        keys_grpc.add_TokenKeysServicer_to_server(NoKeys(), server)

    async with serve(f"unix:{tmp_path}/socket", [Service("keys", add)]) as address:
        place = Place(address, None, is_private=True)
        async with AttestationServiceClient(place) as client:
            keys = remote._RemoteKeys(client, place, clock=system_clock)
            with pytest.raises(ProtocolError, match="shows no keys"):
                await keys._load()


async def test_nobody_appraises(tmp_path: Path) -> None:
    async with appraiser(settings(attestation=BUILTIN), clock=system_clock) as found:
        assert found is None
    keys = {"keys": [SigningKey.generate().public_jwk()]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    nobody = settings(attestation=NO_ATTESTATION, trusted_jwk_sets=(str(tmp_path / "keys.json"),))
    async with appraiser(nobody, clock=system_clock) as found:
        assert found is not None
        assert found.signs is None
        with pytest.raises(NotFoundError, match="no attestation service"):
            await found.service.demand(Tee.TPM, {})
        with pytest.raises(NotFoundError, match="no attestation service"):
            await found.rules.find_reference_value("x")


async def test_another_server_appraises(tmp_path: Path) -> None:
    async with attestation_server(tmp_path) as address:
        there = settings(attestation=address)
        with capture_logs() as said:
            async with appraiser(there, clock=system_clock):
                pass
        assert said == []  # what is on this machine is private
        async with appraiser(there, clock=system_clock) as found:
            assert found is not None
            assert isinstance(found.service, RemoteAttestation)
            assert found.rules is found.service
            assert found.signs is None


def test_whose_tpms_and_whose_values_are_believed(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "vendor.pem")
    fingerprint = "ab" * 32
    (tmp_path / "allowed").write_text(f"{fingerprint}\n")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "corim.pem").write_bytes(pem)
    vendor = settings(
        tpm_vendor_ca=(tmp_path / "vendor.pem",),
        tpm_ek_allow=(tmp_path / "allowed",),
        corim_keys=(tmp_path / "corim.pem",),
    )
    assert _tpm_authorities(vendor)._allowed == {fingerprint}
    (maker,) = _makers(vendor)
    assert maker == key
    for name, look in (("allowed", _tpm_authorities), ("corim.pem", _makers)):
        (tmp_path / name).write_text("nothing that anybody could mean")
        with pytest.raises(ConfigError, match=name):
            look(vendor)


def test_what_is_not_set_stays_as_it_is() -> None:
    assert service_config(settings()) == service_config(settings(token_issuer=None))
    assert service_config(settings(token_issuer="me")).issuer_name == "me"
