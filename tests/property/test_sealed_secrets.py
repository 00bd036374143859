# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, CocosError, FormatError
from cocos.host.offline_fs import parse
from cocos.wire import sealed_secret
from cocos.wire.sealed_secret import Envelope, SealedSecret, Vault

KEY = SigningKey.generate()
JWK = KEY.public_jwk()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3)
    ),
)
SETTINGS = st.dictionaries(st.text(max_size=10), JSON, max_size=3)
PAYLOADS = st.builds(
    Vault, name=st.text(max_size=40), provider_settings=SETTINGS, annotations=SETTINGS
) | st.builds(Envelope, *[st.text(max_size=40)] * 5)
PARTS = st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).rstrip(b"="))
HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), JSON, max_size=3).map(
    lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
)


@given(payload=PAYLOADS)
def test_what_is_sealed_reads_back(payload: Vault | Envelope) -> None:
    text = sealed_secret.seal(payload, KEY, "owner").encode()
    sealed = SealedSecret.parse(text)
    assert sealed.kid == "owner"
    assert sealed.verified(JWK) == payload
    assert sealed_secret.unverified(text) == payload


@given(payload=PAYLOADS, position=st.integers(min_value=7), change=st.integers(1, 255))
def test_any_change_is_noticed(payload: Vault | Envelope, position: int, change: int) -> None:
    text = bytearray(sealed_secret.seal(payload, KEY, "owner").encode())
    text[7 + position % (len(text) - 7)] ^= change
    with pytest.raises((AuthenticationError, FormatError)):
        SealedSecret.parse(bytes(text)).verified(JWK)


@given(
    text=st.binary(max_size=200)
    | st.tuples(HEADERS | PARTS, PARTS, PARTS).map(lambda parts: b"sealed." + b".".join(parts))
)
def test_garbage_is_one_of_our_errors(text: bytes) -> None:
    with pytest.raises(CocosError):
        SealedSecret.parse(text).verified(JWK)
    with pytest.raises(FormatError):
        sealed_secret.unverified(text)


@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_offline_files_are_resources_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        found = parse(data, "file")
        assert all(base64.b64decode(value) is not None for value in found.values())


def test_a_secret_that_nobody_signed_is_told_what_to_do() -> None:
    with pytest.raises(FormatError, match="--insecure-skip-sealed-secret-verification") as caught:
        SealedSecret.parse(b"sealed.fakejwsheader.eyJ2ZXJzaW9uIjoiMC4xLjAifQ.fakesignature")
    assert "cocos-cli secret" in str(caught.value.hint)
