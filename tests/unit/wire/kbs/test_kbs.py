# SPDX-License-Identifier: Apache-2.0
"""Runtime data hashing and resource names: the vectors of kbs.md §4 and §18.9."""

import base64
import hashlib

import pytest

from cocos.errors import FormatError
from cocos.wire import json
from cocos.wire.kbs.protocol import (
    Attestation,
    EcKey,
    Request,
    ResourcePath,
    ResourceUri,
    RsaKey,
    Tee,
    key_members,
    report_data,
    runtime_data,
    without_devices,
)

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = EcKey(
    crv="P-256",
    alg="ECDH-ES+A256KW",
    x="ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
    y="44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
)
DIGEST = (
    "72aa6d1ff1978bfd60a5c2772442dc25c2b322c2c26205abb6d3f6c7ae268461"
    "ae135a3ab829f51fe3f9f352c7565df7"
)


def test_canonical_json_vector() -> None:
    canonical = json.canonical({"b": 1, "a": "test", "c": {"d": "e"}})
    assert hashlib.sha384(canonical).hexdigest() == (
        "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c"
        "4597480a186427c813ca941da78870c3"
    )


def test_primary_report_data_vector() -> None:
    data = runtime_data(NONCE, KEY, "")
    assert json.canonical(data).startswith(b'{"additional-evidence":"","nonce":"AAEC')
    digest = report_data(data)
    assert digest.hex() == DIGEST
    assert base64.b64encode(digest).decode() == (
        "cqptH/GXi/1gpcJ3JELcJcKzIsLCYgWrttP2x64mhGGuE1o6uCn1H+P581LHVl33"
    )


def test_devices_hash_two_members() -> None:
    assert set(runtime_data(NONCE, KEY)) == {"nonce", "tee-pubkey"}
    assert without_devices(runtime_data(NONCE, KEY, "{}")) == runtime_data(NONCE, KEY)
    assert report_data(runtime_data(NONCE, KEY)).hex() != DIGEST


def test_every_input_matters() -> None:
    other = EcKey(crv=KEY.crv, alg=KEY.alg, x=KEY.y, y=KEY.x)
    digests = {
        report_data(runtime_data(NONCE, KEY, "")),
        report_data(runtime_data(NONCE, KEY, "{}")),
        report_data(runtime_data("", KEY, "")),
        report_data(runtime_data(NONCE, other, "")),
    }
    assert len(digests) == 4


def test_unknown_members_of_the_key_are_not_hashed() -> None:
    text = (
        b'{"runtime-data":{"nonce":"n","tee-pubkey":{"kty":"RSA","alg":"RSA-OAEP-256","n":"AQAB",'
        b'"e":"AQAB","kid":"x","d":"secret"}},"tee-evidence":{"primary_evidence":{}}}'
    )
    attestation: Attestation = json.decode(text, Attestation, "the request")
    assert isinstance(attestation.runtime_data.tee_pubkey, RsaKey)
    assert set(key_members(attestation.runtime_data.tee_pubkey)) == {"kty", "alg", "n", "e"}


def test_request_names() -> None:
    request: Request = json.decode(
        b'{"version":"0.4.0","tee":"az-snp-vtpm","extra-params":{}}', Request, "the request"
    )
    assert request.tee is Tee.AZ_SNP_VTPM
    for text in (b'{"version":"0.4.0","tee":"SNP"}', b"{}", b"[]", b"\xff", b"[" * 10_000):
        with pytest.raises(FormatError):
            json.decode(text, Request, "the request")


@pytest.mark.parametrize(
    "text", ["default/1/2", "123--_default/1Abff-_/___-afds44BC", "1.ok/2ok./3..."]
)
def test_resource_paths(text: str) -> None:
    path = ResourcePath.parse(text)
    assert str(path) == text
    assert str(ResourceUri.parse(path.uri)) == path.uri == f"kbs:///{text}"
    assert ResourceUri.parse(path.uri).route == f"resource/{text}"


@pytest.mark.parametrize(
    "text",
    [
        "/1/2",
        "1/2",
        "/repo/type/tag",
        ".1.ok/2ok./3...",
        "a/../b",
        "a/b/c/d",
        "a/b/",
        "a/b/c\n",
        "a/b/" + "c" * 513,
        "a/b/c?d",
        "a/b/c d",
        "ä/b/c",
        "a\\b/c/d",
        "",
    ],
)
def test_bad_resource_paths(text: str) -> None:
    with pytest.raises(FormatError):
        ResourcePath.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kbs",
        "http:///a/b/c",
        "kbs+:///a/b/c",
        "kbs+UP_/a",
        "kbs:///",
        "kbs:///a//c",
        "kbs:///../x",
        "kbs:///a/b/c#d",
        "kbs://[/a",
        "kbs:a/b/c",
        "kbs://host",
        # urlsplit would leave these out.
        " kbs:///a/b/c",
        "kbs:///a/b/c\n",
        "kbs:///a/\tb/c",
        "kbs:///a b/c",
        "kbs:///\u212a/b/c",
        "kbs://[::1]x/a/b/c",
    ],
)
def test_bad_resource_uris(text: str) -> None:
    with pytest.raises(FormatError):
        ResourceUri.parse(text)


def test_plugin_uri_keeps_its_query() -> None:
    uri = ResourceUri.parse("kbs+nebula-ca://some-host/credential?name=x&ip=1")
    assert uri.route == "nebula-ca/credential?name=x&ip=1"
    assert str(uri) == "kbs+nebula-ca:///credential?name=x&ip=1"
