# SPDX-License-Identifier: Apache-2.0
"""Tokens of several issuers, prefixes of policies, messages with reference values: any of them."""

import base64
import datetime as dt
import json
import re
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from _certificates import NOW, Party
from _tokens import Keys
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from cocos._types import UnverifiedToken
from cocos.attestation_service.reference_values import ReferenceValues
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import base64url, jwt
from cocos.crypto.signing import SigningKey
from cocos.errors import CallerError, EvidenceError, Finding
from cocos.kbs.resource_policy import POLICY_ID, prefixes
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy
from cocos.stores.sql import SqlStore, storage_url
from cocos.tokens.chains import CertifiedKeys
from cocos.tokens.check import InsecureHeaderKeys, TokenVerifier
from cocos.wire.attestation_rpc import MAX_BYTES, decode_findings, encode_findings

OWN, FORGER = SigningKey.generate(), SigningKey.generate()
ROOT = Party("root").certify(ca=True)
LEAF = Party("leaf").certify(ROOT)
STRANGER = Party("leaf").certify(Party("root").certify(ca=True))
CLAIMS = {"exp": NOW.timestamp() + 300, "submods": {}}
VERIFIER = TokenVerifier([Keys(OWN), CertifiedKeys([ROOT.certificate], clock=lambda: NOW)])
INSECURE = TokenVerifier([InsecureHeaderKeys()])

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[SqlStore]:
    with tempfile.TemporaryDirectory() as folder:
        opened = await SqlStore.open(storage_url(folder), clock=lambda: NOW)
        yield opened
        await opened.close()


def certified(party: Party) -> dict[str, Any]:
    return {**party.signing_key.public_jwk(), "x5c": [party.x5c]}


HEADERS: list[dict[str, Any]] = [
    {"kid": OWN.kid, "jwk": OWN.public_jwk()},
    {"kid": FORGER.kid, "jwk": FORGER.public_jwk()},
    {"jwk": certified(LEAF)},
    {"jwk": certified(STRANGER)},
    {"jwk": {**FORGER.public_jwk(), "x5c": [LEAF.x5c]}},
    {"jwk": {**certified(LEAF), "x5c": [STRANGER.x5c, LEAF.x5c]}},
    {"kid": OWN.kid, "jwk": certified(LEAF)},
    {"kid": OWN.kid},
    {},
]
SIGNERS = {
    "own": OWN,
    "certified": LEAF.signing_key,
    "forger": FORGER,
    "stranger": STRANGER.signing_key,
}


@given(st.sampled_from(HEADERS), st.sampled_from([*SIGNERS]))
@settings(deadline=None)
async def test_who_signed_decides_whatever_the_header_says(
    header: dict[str, Any], signer: str
) -> None:
    token = UnverifiedToken(SIGNERS[signer].sign(header, CLAIMS))
    own = signer == "own" and header.get("kid") in {None, OWN.kid}
    if own or (signer == "certified" and header.get("jwk") == certified(LEAF)):
        assert await VERIFIER.verify(token, NOW) == CLAIMS
    else:
        with pytest.raises(EvidenceError):
            await VERIFIER.verify(token, NOW)


TOKENS = [
    OWN.sign(HEADERS[0], CLAIMS),
    LEAF.signing_key.sign(HEADERS[2], CLAIMS),
    STRANGER.signing_key.sign(HEADERS[3], CLAIMS),
    FORGER.sign(HEADERS[1], CLAIMS),
]


@given(*[st.sampled_from(TOKENS)] * 3)
@settings(deadline=None)
async def test_parts_of_several_tokens(first: str, second: str, third: str) -> None:
    mixed = ".".join(
        token.split(".")[number] for number, token in enumerate((first, second, third))
    )
    if mixed in TOKENS[:2]:
        assert await VERIFIER.verify(UnverifiedToken(mixed), NOW) == CLAIMS
    else:
        # The claims are the same in all: a signature is over header and claims.
        with pytest.raises(EvidenceError):
            await VERIFIER.verify(UnverifiedToken(mixed), NOW)


ALGORITHMS = ["none", "None", "", "HS256", "HS512", "RS256", "PS256", "ES384", "ES512", "EdDSA"]


@given(
    st.sampled_from(ALGORITHMS) | json_values,
    st.sampled_from(ALGORITHMS) | json_values,
    st.sampled_from(TOKENS),
)
@settings(deadline=None)
async def test_confused_algorithms(in_header: Any, in_key: Any, token: str) -> None:
    assume("ES256" not in (in_header, in_key))
    header = jwt.header_of(token)
    _, claims, signature = token.split(".")
    for changed in (
        {**header, "alg": in_header},
        {**header, "jwk": {**header["jwk"], "alg": in_key}},
        {**header, "alg": in_header, "jwk": {**header["jwk"], "alg": in_header}},
    ):
        text = f"{base64url.encode(json.dumps(changed).encode())}.{claims}.{signature}"
        for verifier in (VERIFIER, INSECURE):
            with pytest.raises(EvidenceError):
                await verifier.verify(UnverifiedToken(text), NOW)


@given(st.data())
@settings(deadline=None)
async def test_any_bit_of_what_a_certificate_says(data: st.DataObject) -> None:
    der = bytearray(base64.b64decode(LEAF.x5c))
    signed = LEAF.certificate.tbs_certificate_bytes
    start = der.index(signed)
    place = data.draw(st.integers(start, start + len(signed) - 1))
    der[place] ^= 1 << data.draw(st.integers(0, 7))
    header = {"jwk": {**LEAF.signing_key.public_jwk(), "x5c": [base64.b64encode(der).decode()]}}
    with pytest.raises(EvidenceError):
        await VERIFIER.verify(UnverifiedToken(LEAF.signing_key.sign(header, CLAIMS)), NOW)


@given(json_values, json_values)
@settings(deadline=None)
async def test_any_key_and_chain(key: Any, chain: Any) -> None:
    for members in (key, {**OWN.public_jwk(), "x5c": chain}, {"kty": key, "x5c": chain}):
        token = UnverifiedToken(FORGER.sign({"jwk": members}, CLAIMS))
        for verifier in (VERIFIER, INSECURE):
            with pytest.raises(EvidenceError):
                await verifier.verify(token, NOW)


names = st.sampled_from(["kid", "jwk", "x5c", "x5u", "crit", "b64", "cty"])


@given(header=st.dictionaries(names, json_values, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_header(store: SqlStore, header: dict[str, Any]) -> None:
    keys = SigningKeys(store, clock=lambda: NOW, token_lifetime=dt.timedelta(minutes=5))
    verifier = TokenVerifier([keys, CertifiedKeys([ROOT.certificate], clock=lambda: NOW)])
    for key in (FORGER, STRANGER.signing_key):
        with pytest.raises(EvidenceError):
            await verifier.verify(UnverifiedToken(key.sign(header, CLAIMS)), NOW)


# --- prefixes of routes ---

segments = st.sampled_from(["a", "b", "ab", "key", "key2", "default", "1"])
routes = st.lists(segments, min_size=1, max_size=4)


@given(routes, st.sets(routes.map("/".join), max_size=6))
def test_the_longest_prefix_of_whole_segments_decides(route: list[str], stored: set[str]) -> None:
    path = "/".join(route)
    fitting = [each for each in stored if path == each or path.startswith(f"{each}/")]
    chosen = next(each for each in prefixes(route) if each in {*stored, POLICY_ID})
    assert chosen == max(fitting, key=len, default=POLICY_ID)


WANTED = Policy(
    'package policy\nallow := [data.plugin, data["resource-path"], data.query, input.a]\n'
)


# Larger integers are refused, and larger floats written as integers.
claims = json_values.filter(lambda value: not re.search(r"\.|\d{19}|e\+", json.dumps(value)))


@given(st.text(), st.lists(st.text(), max_size=4), st.dictionaries(st.text(), st.text()), claims)
@settings(deadline=None, max_examples=50)
def test_policies_see_what_is_asked_for(
    plugin: str, path: list[str], query: dict[str, str], claim: Any
) -> None:
    wanted = {"plugin": plugin, "resource-path": path, "query": query}
    moved = WANTED.evaluate(["allow"], {"a": claim}, request=wanted)["allow"]
    assert moved == [plugin, path, query, claim]


# --- reference values ---


@pytest.fixture
def values(store: SqlStore) -> ReferenceValues:
    return ReferenceValues(store, clock=lambda: NOW, sample=True)


LOOK = Policy("package policy\nallow := query_reference_value(input.name)\n")


payloads = st.dictionaries(st.text(max_size=12), json_values, max_size=3).map(
    lambda payload: base64.b64encode(json.dumps(payload).encode()).decode()
)
messages = (
    payloads.map(lambda payload: {"type": "sample", "payload": payload})
    | st.fixed_dictionaries(
        {}, optional={"type": json_values, "payload": json_values, "version": json_values}
    )
    | st.dictionaries(st.text(max_size=8), json_values, max_size=3)
)


@given(message=messages)
@example(message={"type": "sample", "payload": base64.b64encode(b'{"a": 1, "a": 2}').decode()})
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_message_is_stored_whole_or_refused(
    values: ReferenceValues, message: Any
) -> None:
    before = dict(await values.all())
    try:
        names = await values.register(message)
    except CallerError:
        assert await values.all() == before
        return
    said = json.loads(base64.b64decode(message["payload"]))
    assert set(names) == set(said)
    base = BaseDocuments.of(await values.all())
    for name, value in said.items():
        assert await values.get(name) == value
        looked_up = LOOK.evaluate(["allow"], {"name": name}, base=base)["allow"]
        # The engine writes large floats as the shortest integer that stands for them.
        assert looked_up == value or float(looked_up) == value


findings = st.lists(
    st.builds(Finding, st.text(max_size=9), st.text(), st.text(), st.text()), max_size=30
).map(tuple)


@given(findings)
def test_findings_travel_as_far_as_there_is_room(given_findings: tuple[Finding, ...]) -> None:
    data = encode_findings(given_findings)
    assert len(data) <= MAX_BYTES
    got = decode_findings(data)
    assert got == given_findings[: len(got)]


@given(st.binary(max_size=200))
def test_findings_of_strangers(data: bytes) -> None:
    assert isinstance(decode_findings(data), tuple)
