# SPDX-License-Identifier: Apache-2.0
"""Reference values of makers: who may sign them, what is read, and what never is."""

import base64
import datetime as dt
import uuid
from typing import Any

import pytest
from _cbor import EDDSA, ES256, ES384, dumps, sign1
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cocos.attestation_service.corim import Makers
from cocos.attestation_service.reference_values import ReferenceValues
from cocos.errors import AuthenticationError, CocosError, FormatError, NotFoundError
from cocos.evidence.cbor import Tagged
from cocos.stores.base import Store

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY = 24 * 3600
KEY = ec.generate_private_key(ec.SECP384R1())
UUID = uuid.UUID("31fb5abf-023e-4992-aa4e-95f9c1503bfa")


@pytest.fixture
def clock() -> Any:
    return lambda: NOW


def measurement() -> dict[Any, Any]:
    return {0: Tagged(37, UUID.bytes), 1: {2: [[1, b"\xaa" * 32]]}}


def comid(*measurements: dict[Any, Any], env: Any = None) -> Tagged:
    environment = {0: {1: "ACME", 2: "RoadRunner"}} if env is None else env
    triples = {0: [[environment, list(measurements or [measurement()])]]}
    return Tagged(506, dumps({1: {0: "id"}, 4: triples}))


def manifest(*tags: Any, more: dict[Any, Any] | None = None) -> dict[Any, Any]:
    return {0: "corim", 1: list(tags or [comid()])} | (more or {})


def corim(item: dict[Any, Any] | None = None) -> bytes:
    return dumps(Tagged(501, manifest() if item is None else item))


def signed(data: bytes | None = None, key: Any = KEY, alg: int = ES384, **more: Any) -> bytes:
    item = sign1(key, corim() if data is None else data, alg, **more)
    return dumps(Tagged(500, Tagged(502, item)))


def values(data: bytes, *keys: Any, unsigned: bool = False) -> Any:
    trusted = [key.public_key() for key in keys or [KEY]]
    return Makers(trusted, insecure_unsigned=unsigned).values(data, NOW)


NAME = f"ACME/RoadRunner/{UUID}/digests"


def test_signed_by_a_maker() -> None:
    assert values(signed()) == ({NAME: ["aa" * 32]}, None)


@pytest.mark.parametrize(
    "key",
    [
        (ec.generate_private_key(ec.SECP256R1()), ES256),
        (ed25519.Ed25519PrivateKey.generate(), EDDSA),
    ],
)
def test_keys_of_other_kinds(key: Any) -> None:
    assert values(signed(key=key[0], alg=key[1]), KEY, key[0])


def test_unsigned_is_refused_unless_allowed_by_name() -> None:
    for wrapped in (corim(), dumps(Tagged(500, Tagged(501, manifest()))), dumps(manifest())):
        with pytest.raises(AuthenticationError, match="nobody has signed"):
            values(wrapped)
        assert values(wrapped, unsigned=True)[0] == {NAME: ["aa" * 32]}


def test_signed_by_somebody_else() -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    for unsigned in (False, True):  # whoever signs is judged by the signature
        with pytest.raises(AuthenticationError, match="not signed by a key"):
            values(signed(key=other), unsigned=unsigned)
    with pytest.raises(AuthenticationError):
        Makers().values(signed(), NOW)


@pytest.mark.parametrize("alg", [ES256, EDDSA, 0, -37, 5, -65535])
def test_an_algorithm_of_another_key(alg: int) -> None:
    with pytest.raises(AuthenticationError):
        values(signed(alg=alg))


def test_the_algorithm_has_to_be_signed() -> None:
    item = sign1(KEY, corim(), ES384, unprotected={1: ES384})
    _, unprotected, payload, made = item.value
    for changed in (b"", dumps({}), dumps({1: "ES384"}), dumps({1: None})):
        with pytest.raises(AuthenticationError):
            values(dumps(Tagged(18, (changed, unprotected, payload, made))))


def test_headers_that_must_be_understood() -> None:
    for where in ({"headers": {2: [99], 99: 1}}, {"unprotected": {2: [99]}}):
        with pytest.raises(FormatError, match="understands"):
            values(signed(**where))


def test_every_bit_of_a_signed_one_counts() -> None:
    data = bytearray(signed())
    for bit in range(8 * 7, 8 * len(data)):  # the first seven bytes are tags around it
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CocosError):
            values(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_cut_or_longer() -> None:
    data = signed()
    for changed in (*(data[:size] for size in range(len(data))), data + b"\0", data + data):
        with pytest.raises(CocosError):
            values(changed)


@pytest.mark.parametrize(
    ("begin", "end", "held"),
    [
        (None, 1, True),
        (-1, 1, True),
        (0, 1, True),
        (None, 0, False),
        (-2, -1, False),
        (1, 2, False),
    ],
)
@pytest.mark.parametrize("where", ["manifest", "signature"])
def test_validity(begin: int | None, end: int, *, held: bool, where: str) -> None:
    now = int(NOW.timestamp())
    span = {1: Tagged(1, now + end * DAY)}
    if begin is not None:
        span[0] = Tagged(1, now + begin * DAY)
    if where == "manifest":
        data = signed(corim(manifest(more={4: span})))
    else:
        data = signed(headers={8: dumps({0: {0: "ACME"}, 1: span})})
    if held:
        assert values(data)[1] == NOW + dt.timedelta(days=end)
    else:
        with pytest.raises(FormatError, match=r"valid before|expired"):
            values(data)


@pytest.mark.parametrize(
    ("claim", "name", "value"),
    [
        (measurement(), NAME, ["aa" * 32]),
        ({1: {2: [[1, b"\1"], [7, b"\2"]]}}, "ACME/RoadRunner/digests", ["01", "02"]),
        ({0: 3, 1: {2: [[1, b"\1"]]}}, "ACME/RoadRunner/claim3/digests", ["01"]),
        ({0: "k", 1: {4: Tagged(560, b"\1\2")}}, "ACME/RoadRunner/k/raw_bytes", "0102"),
        ({0: "k", 1: {11: "n", 8: "s", 2: [[1, b""]]}}, "ACME/RoadRunner/k/n/s/digests", [""]),
    ],
)
def test_names(claim: Any, name: str, value: Any) -> None:
    assert values(signed(corim(manifest(comid(claim)))))[0] == {name: value}


def test_values_of_one_name() -> None:
    two = [comid({0: "k", 1: {2: [[1, b"\1"]]}}), comid({0: "k", 1: {2: [[1, b"\1"], [1, b"\2"]]}})]
    assert list(values(signed(corim(manifest(*two))))[0].values()) == [["01", "02"]]
    raw = [comid({0: "k", 1: {4: Tagged(560, each)}}) for each in (b"\1", b"\2")]
    with pytest.raises(FormatError, match="two values"):
        values(signed(corim(manifest(*raw))))


@pytest.mark.parametrize(
    "item",
    [
        {},
        {1: None},
        {1: []},
        {1: {}},
        manifest(Tagged(505, b"")),
        manifest(Tagged(506, b"")),
        manifest(Tagged(506, dumps([]))),
        manifest(comid({0: Tagged(37, b"short"), 1: {}})),
        manifest(comid({0: Tagged(111, b"oid"), 1: {2: [[1, b""]]}})),
        manifest(comid({0: -1, 1: {2: [[1, b""]]}})),
        manifest(comid({0: "k", 1: {2: [[1]]}})),
        manifest(comid({0: "k", 1: {2: [[1, "text"]]}})),
        manifest(comid({0: "k", 1: {4: Tagged(560, b"\1"), 5: b"\1"}})),
        manifest(comid({0: "k", 1: {1: 7}})),
        manifest(comid(env=[])),
        manifest(comid(env={0: {1: 5}})),
        manifest(comid(env={0: {1: "ACME"}, 1: Tagged(550, b"one device")})),
        manifest(comid(env={0: {1: "ACME"}, 2: Tagged(560, b"some devices")})),
        manifest(more={4: {1: Tagged(1, 2**70 % 2**64)}}),
        manifest(more={4: {1: True}}),
    ],
    ids=range(20),
)
def test_malformed(item: Any) -> None:
    with pytest.raises(FormatError):
        values(signed(corim(item)))


async def test_registered(store: Store) -> None:
    now = [NOW]
    kept = ReferenceValues(
        store, clock=lambda: now[0], sample=False, makers=Makers([KEY.public_key()])
    )
    span = {1: Tagged(1, int(NOW.timestamp()) + DAY)}

    def message(data: bytes) -> Any:
        return {"type": "corim", "payload": base64.b64encode(data).decode()}

    data = signed(corim(manifest(more={4: span})))
    assert await kept.register(message(data)) == (NAME,)
    assert await kept.get(NAME) == ["aa" * 32]
    now[0] += dt.timedelta(days=1)
    with pytest.raises(NotFoundError):
        await kept.get(NAME)
    assert NAME in kept.lapsed
    with pytest.raises(FormatError, match="expired"):
        await kept.register(message(data))
    # Without an end, and with one far away: a year.
    span[1] = Tagged(1, int(NOW.timestamp()) + 9999 * DAY)
    for held in (signed(), signed(corim(manifest(more={4: span})))):
        assert await kept.register(message(held)) == (NAME,)
        (found,) = await kept.list()
        assert found.expiration == "2027-11-24T12:00:00Z"
    with pytest.raises(AuthenticationError):
        await kept.register(message(corim()))
    with pytest.raises(FormatError, match="'swid'"):
        await kept.register(message(corim()) | {"type": "swid"})
