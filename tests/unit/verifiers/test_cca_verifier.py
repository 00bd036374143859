# SPDX-License-Identifier: Apache-2.0
"""The CCA verifier on platforms and realms in software, step by step."""

import base64
import hashlib
import json
from typing import Any

import pytest
from _cbor import ES256, ES384, dumps, sign1
from _verified import verified
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos._types import ReportData
from cocos.crypto import base64url
from cocos.errors import EvidenceError, Finding
from cocos.evidence.cbor import Tagged
from cocos.verifiers import CcaVerifier, Expected

BOUND = ReportData(hashlib.sha384(b"session").digest())
CPAK = ec.generate_private_key(ec.SECP256R1())
RAK = ec.generate_private_key(ec.SECP384R1())
INSTANCE = b"\x01" + bytes(range(32))
VERIFIER = CcaVerifier()
INIT = hashlib.sha256(b"init data").digest()


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def cose_key(key: ec.EllipticCurvePrivateKey, curve: int = 2) -> bytes:
    data = point(key)[1:]
    half = len(data) // 2
    return dumps({1: 2, -1: curve, -2: data[:half], -3: data[half:]})


def anchor(key: ec.EllipticCurvePrivateKey = CPAK, **changes: Any) -> dict[str, Any]:
    x, y = point(key)[1:33], point(key)[33:]
    pkey = {"kty": "EC", "crv": "P-256", "x": base64url.encode(x), "y": base64url.encode(y)}
    return {"instance-id": INSTANCE.hex(), "implementation-id": "", "pkey": pkey} | changes


def expected(*anchors: Any) -> Expected:
    return Expected(BOUND, reference_values={"cca_trust_anchors": list(anchors or [anchor()])})


def realm_claims(key: bytes, **changes: Any) -> dict[Any, Any]:
    claims = {
        10: BOUND.ljust(64, b"\0"),
        44235: INIT.ljust(64, b"\0"),
        44236: "sha-256",
        44237: key,
        44238: b"\x38" * 32,
        44239: [bytes(32)] * 4,
        44240: "sha-256",
    }
    return claims | {int(name[1:]): value for name, value in changes.items()}


def platform_claims(key: bytes, **changes: Any) -> dict[Any, Any]:
    claims = {
        10: hashlib.sha256(key).digest(),
        256: INSTANCE,
        265: "http://arm.com/CCA-SSD/1.0.0",
        2395: 0x3003,
        2396: b"\x96" * 32,
        2399: [{1: "BL", 2: b"\x02" * 32, 4: "3.4.2", 5: b"\x05" * 32}],
        2401: b"\1\2\3",
        2402: "sha-256",
    }
    return claims | {int(name[1:]): value for name, value in changes.items()}


def token(  # noqa: PLR0917 - each is what one test changes
    realm: dict[str, Any] | None = None,
    platform: dict[str, Any] | None = None,
    rak: ec.EllipticCurvePrivateKey = RAK,
    cpak: ec.EllipticCurvePrivateKey = CPAK,
    key: bytes | None = None,
    algorithms: tuple[int, int] = (ES256, ES384),
    *,
    wrapped: bool = False,
) -> bytes:
    said = point(RAK) if key is None else key
    parts = (
        (44234, cpak, platform_claims(said, **(platform or {})), algorithms[0]),
        (44241, rak, realm_claims(said, **(realm or {})), algorithms[1]),
    )
    found: dict[int, Any] = {}
    for label, signer, claims, algorithm in parts:
        signed = dumps(sign1(signer, dumps(claims), algorithm))
        found[label] = [263, signed] if wrapped else signed
    return dumps(Tagged(907 if wrapped else 399, found))


def of(data: bytes) -> dict[str, Any]:
    return {"token": list(data)}


async def checks(
    data: bytes, wanted: Expected | None = None, init_data: bytes | None = None
) -> dict[str, Finding]:
    with pytest.raises(EvidenceError) as caught:
        await verified(VERIFIER, of(data), wanted or expected(), init_data)
    return {finding.check: finding for finding in caught.value.findings}


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("key", [point(RAK), cose_key(RAK)], ids=["raw", "COSE_Key"])
async def test_claims(key: bytes, *, wrapped: bool) -> None:
    claims = await verified(VERIFIER, of(token(key=key, wrapped=wrapped)), expected(), INIT)

    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    assert claims["realm"] == {
        "cca-realm-personalization-value": b64(INIT.ljust(64, b"\0")),
        "cca-realm-initial-measurement": b64(b"\x38" * 32),
        "cca-realm-extensible-measurements": [b64(bytes(32))] * 4,
        "cca-realm-hash-algo-id": "sha-256",
        "cca-realm-challenge": b64(BOUND.ljust(64, b"\0")),
    }
    assert claims["platform"]["cca-platform-instance-id"] == b64(INSTANCE)
    assert claims["platform"]["cca-platform-implementation-id"] == b64(b"\x96" * 32)
    (component,) = claims["platform"]["cca-platform-sw-components"]
    assert component["measurement-value"] == b64(b"\x02" * 32)
    assert claims["report_data"] == BOUND.ljust(64, b"\0").hex()
    assert claims["init_data"] == INIT.ljust(64, b"\0").hex()
    assert json.dumps(claims)


@pytest.mark.parametrize(
    "anchors",
    [
        [{}],
        [None],
        [anchor() | {"instance-id": "01" + "00" * 32}],
        [anchor() | {"instance-id": None}],
        [anchor(pkey=None)],
        [anchor(pkey={"kty": "EC"})],
        ["x"],
    ],
    ids=range(7),
)
async def test_a_platform_that_nobody_registered(anchors: list[Any]) -> None:
    assert set(await checks(token(), expected(*anchors))) == {"cca.platform.key"}
    for value in (None, {}, "x", 1, anchor()):
        wanted = Expected(BOUND, reference_values={"cca_trust_anchors": value})
        assert set(await checks(token(), wanted)) == {"cca.platform.key"}
    assert set(await checks(token(), Expected(BOUND))) == {"cca.platform.key"}


async def test_another_platforms_signature() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    assert set(await checks(token(cpak=other))) == {"cca.platform.signature"}
    assert set(await checks(token(), expected(anchor(other)))) == {"cca.platform.signature"}
    assert set(await checks(token(algorithms=(ES384, ES384)))) == {"cca.platform.signature"}


async def test_a_realm_of_another_key() -> None:
    """The platform vouches for one realm's key; whoever has another one cannot say it is that."""
    other = ec.generate_private_key(ec.SECP384R1())
    assert set(await checks(token(rak=other))) == {"cca.realm.signature"}
    swapped = token(realm={"_44237": point(other)}, rak=other)
    assert set(await checks(swapped)) == {"cca.realm.key"}
    assert set(await checks(token(algorithms=(ES256, ES256)))) == {"cca.realm.signature"}


@pytest.mark.parametrize("name", ["md5", "sha-1", "sha-384", "", "sha256"])
async def test_how_the_realms_key_is_hashed(name: str) -> None:
    assert set(await checks(token(realm={"_44240": name}))) == {"cca.realm.key"}


@pytest.mark.parametrize("name", ["sha-384", "sha-512"])
async def test_other_hashes_of_the_realms_key(name: str) -> None:
    digest = hashlib.new(name.replace("-", ""), point(RAK)).digest()
    data = token(realm={"_44240": name}, platform={"_10": digest})
    assert await verified(VERIFIER, of(data), expected())


@pytest.mark.parametrize(
    "key",
    [
        b"",
        bytes(97),
        b"\x04" + bytes(96),
        cose_key(RAK, curve=1),
        cose_key(ec.generate_private_key(ec.SECP256R1())),
        dumps({1: 2, -1: 2}),
        dumps([]),
        cose_key(RAK)[:-1],
    ],
    ids=range(8),
)
async def test_keys_that_are_none(key: bytes) -> None:
    assert set(await checks(token(key=key))) == {"cca.realm.key"}


@pytest.mark.parametrize("challenge", [bytes(64), BOUND + b"\1" * 16, bytes(16) + BOUND])
async def test_another_challenge(challenge: bytes) -> None:
    assert set(await checks(token(realm={"_10": challenge}))) == {"cca.report_data"}


@pytest.mark.parametrize("state", [0, 0x2FFF, 0x3100, 0x4000, 0x5000, 0x6000, -1])
async def test_a_platform_that_is_open(state: int) -> None:
    assert set(await checks(token(platform={"_2395": state}))) == {"cca.platform.lifecycle"}


@pytest.mark.parametrize("shown", [b"", INIT[:31], INIT + b"\1", bytes(32), bytes(65)])
async def test_other_init_data(shown: bytes) -> None:
    assert set(await checks(token(), init_data=shown)) == {"cca.init_data"}


@pytest.mark.parametrize("label", [10, 256, 2395, 2396, 2399, 2401])
@pytest.mark.parametrize("value", [None, True, "x", b"short", -1, [None], {}])
async def test_claims_of_other_types(label: int, value: Any) -> None:
    if (label, value) in [(2395, -1), (2401, b"short")]:
        return  # which are of the right type
    assert set(await checks(token(platform={f"_{label}": value}))) == {"cca.evidence"}


@pytest.mark.parametrize("label", [10, 44235, 44236, 44237, 44238, 44239, 44240])
@pytest.mark.parametrize("value", [None, True, b"short", 1, [bytes(32)] * 3, [b""] * 4, {}])
async def test_claims_of_a_realm_of_other_types(label: int, value: Any) -> None:
    found = await checks(token(realm={f"_{label}": value}))
    assert found.keys() <= {"cca.evidence", "cca.realm.key"}


async def test_bits_of_a_token_count() -> None:
    data = bytearray(token())
    for bit in range(0, 8 * len(data), 5):
        data[bit // 8] ^= 1 << bit % 8
        assert await checks(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        {},
        {"token": "x"},
        {"token": []},
        {"token": [256]},
        {"token": [-1]},
        {"token": [0] * 20_000},
        of(token()[:-1]),
        of(token() + b"\0"),
        of(dumps({})),
        of(dumps(Tagged(399, {44234: b""}))),
        of(dumps(Tagged(399, {44234: b"", 44241: b"", 1: 2}))),
        of(dumps(Tagged(907, {44234: b"", 44241: b""}))),
        of(dumps(Tagged(399, {44234: [], 44241: []}))),
    ],
    ids=range(14),
)
async def test_no_evidence(evidence: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        await verified(VERIFIER, evidence, expected())
    assert [each.check for each in caught.value.findings] == ["cca.evidence"]
