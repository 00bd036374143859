# SPDX-License-Identifier: Apache-2.0
"""Addresses of KBSs: one spelling each, and nothing that they are known by gets lost."""

import base64
import contextlib
import subprocess

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from cocos.crypto import detached
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, CocosError, FormatError
from cocos.wire import env_file
from cocos.wire.kbs import proof
from cocos.wire.kbs.address import By, KbsAddress, claims_of

KEY, OTHER = "token-key=" + "A" * 43, "token-key=" + "B" * 42 + "A"
CERT = "cert-sha256=" + "0a" * 32
PEM = trustme.CA().cert_pem.bytes().decode()
MANY = "".join(trustme.CA().cert_pem.bytes().decode() for _ in range(5))


@pytest.mark.parametrize(
    ("text", "url", "by"),
    [
        ("http://kbs", "http://kbs", By.NOTHING),
        ("https://kbs", "https://kbs", By.PUBLIC_CAS),
        ("HTTP://KBS.Example:80/", "http://kbs.example", By.NOTHING),
        ("https://kbs:443//", "https://kbs", By.PUBLIC_CAS),
        ("http://[::0:1]:8080/a/b/", "http://[::1]:8080/a/b", By.NOTHING),
        (f"http://kbs:8080/#{KEY}", "http://kbs:8080", By.TOKEN_KEY),
        (f"https://kbs#{KEY}", "https://kbs", By.TOKEN_KEY),
        (f"https://kbs#{CERT}", "https://kbs", By.CERTIFICATE),
    ],
)
def test_what_an_address_says(text: str, url: str, by: By) -> None:
    address = KbsAddress.parse(text)
    assert (address.url, address.by) == (url, by)
    assert KbsAddress.parse(str(address)) == address
    assert address.authenticated == (by is not By.NOTHING)


def test_several_proofs_have_one_order() -> None:
    one, two = (KbsAddress.parse(f"http://kbs#{a}&{b}") for a, b in ((KEY, OTHER), (OTHER, KEY)))
    assert one == two
    assert one.token_keys == {KEY[10:], OTHER[10:]}


def test_a_ca_goes_along_and_shows_as_its_digest() -> None:
    address = KbsAddress.parse("https://kbs").with_ca(PEM)
    assert KbsAddress.parse(str(address)) == address
    assert address.ca is not None
    assert "".join(address.ca.split()) == "".join(PEM.split())
    (shown,) = address.claim()["proofs"]
    der = subprocess.run(
        ["openssl", "x509", "-outform", "DER"], input=PEM.encode(), check=True, capture_output=True
    ).stdout
    digest = subprocess.run(["sha256sum"], input=der, check=True, capture_output=True).stdout
    assert shown == digest.decode().split()[0]


@pytest.mark.parametrize("pem", ["", "x", PEM + "-----BEGIN RSA PRIVATE KEY-----", MANY])
def test_texts_that_are_no_cas(pem: str) -> None:
    with pytest.raises(FormatError):
        KbsAddress.parse("https://kbs").with_ca(pem)


def test_a_password_does_not_show() -> None:
    with pytest.raises(FormatError) as caught:
        KbsAddress.parse("http://user:hush@kbs")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "configured", "expected"),
    [
        # The KBS that is known, again: in plain text, in another spelling, by public CAs.
        ("http://kbs:1", f"http://kbs:1#{KEY}", f"http://kbs:1#{KEY}"),
        ("http://KBS:1/", f"http://kbs:1#{KEY}", f"http://kbs:1#{KEY}"),
        ("https://kbs:1", f"http://kbs:1#{KEY}", f"https://kbs:1#{KEY}"),
        ("http://kbs:1", f"https://kbs:1#{CERT}", f"https://kbs:1#{CERT}"),
        ("https://kbs:1", f"https://kbs:1#{CERT}", f"https://kbs:1#{CERT}"),
        ("http://kbs:1", "https://kbs:1", "https://kbs:1"),
        ("http://kbs:1", f"https://kbs:1#{KEY}", f"https://kbs:1#{KEY}"),
        ("http://kbs:1/path", f"http://kbs:1#{KEY}", f"http://kbs:1/path#{KEY}"),
        # What says something of its own says it, and others are others.
        (f"http://kbs:1#{OTHER}", f"http://kbs:1#{KEY}", f"http://kbs:1#{OTHER}"),
        ("http://kbs:2", f"http://kbs:1#{KEY}", "http://kbs:2"),
        ("http://other:1", f"http://kbs:1#{KEY}", "http://other:1"),
        ("http://kbs", f"https://kbs#{CERT}", "http://kbs"),
        ("http://kbs:1", "http://kbs:1", "http://kbs:1"),
    ],
)
def test_what_is_known_stays_known(named: str, configured: str, expected: str) -> None:
    told = KbsAddress.parse(configured)
    assert str(KbsAddress.parse(named).trusted_like(told)) == expected
    assert KbsAddress.parse(named).trusted_like(None) == KbsAddress.parse(named)


def test_claims_of_several() -> None:
    known, unknown = KbsAddress.parse(f"http://a#{KEY}"), KbsAddress.parse("http://b")
    assert claims_of([known, known]) == {
        "authenticated": True,
        "by": ["token-key"],
        "named": [known.claim()],
    }
    assert claims_of([known, unknown])["authenticated"] is False
    assert claims_of([known, None])["authenticated"] is False
    assert claims_of([])["authenticated"] is False, "nothing named is nothing known"


PIECES = st.sampled_from(
    [
        *("http://", "https://", "kbs", "10.0.2.2", "[::1]", ":8080", ":443", ":80", "/", "/a"),
        *("#", "&", "=", KEY, OTHER, CERT, "ca=", "@", "%", "?", "..", "A", "é", " ", "\0", "::"),
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=60)


@given(TEXTS, TEXTS)
@example(f"http://kbs:8080#{KEY}", "http://kbs:8080")
def test_any_text_is_an_address_or_refused(text: str, other: str) -> None:
    with contextlib.suppress(FormatError):
        address = KbsAddress.parse(text)
        assert KbsAddress.parse(str(address)) == address
        assert str(address).isascii()
        assert "," not in str(address), "Skopeo would split it"
        assert str(address).count("#") <= 1
        named = KbsAddress.parse(other).trusted_like(address)
        if named.place == address.place and address.authenticated:
            assert named.authenticated, "it fell back"


VALUES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=20)


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), VALUES))
def test_variables_survive_their_file(variables: dict[str, str]) -> None:
    assert env_file.loads(env_file.dumps(variables)) == variables


@given(st.text(st.sampled_from('AB="\\$`\n\r #;x'), max_size=24))
def test_a_file_of_variables_reads_as_a_shell_reads_it_or_is_refused(text: str) -> None:
    with contextlib.suppress(FormatError):
        found = env_file.loads(text)
        assert env_file.loads(env_file.dumps(found)) == found
        assert all(value.isprintable() for value in found.values())


@pytest.mark.parametrize("value", ["plain", 'a"b', "a\\b", "$HOME", "`id`", "a\\$b", "é", "", "'"])
def test_a_shell_reads_what_we_wrote(value: str) -> None:
    script = f'{env_file.dumps({"A": value})}printf %s "$A"'
    shown = subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    assert shown.stdout.decode() == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\x7f", "\u2028"])
def test_values_that_no_line_holds(value: str) -> None:
    with pytest.raises(FormatError):
        env_file.dumps({"A": value})


# --- the proof of an answer ---------------------------------------------------------------

SIGNER = SigningKey.generate()
TEE = {"kty": "EC", "crv": "P-256", "alg": "x", "x": "1", "y": "2"}


def content(**changes: object) -> bytes:
    made = {"nonce": "n" * 22, "resource": "resource/a/b/c", "tee_key": TEE, "body": b"{}"}
    return proof.content(**{**made, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "m" * 22},
        {"resource": "resource/a/b/d"},
        {"tee_key": {**TEE, "x": "3"}},
        {"body": b"{ }"},
    ],
)
def test_a_proof_is_of_all_that_it_is_about(change: dict[str, object]) -> None:
    made = detached.sign(content(), SIGNER)
    detached.verify(made, content(), {SIGNER.kid})
    with pytest.raises(AuthenticationError):
        detached.verify(made, content(**change), {SIGNER.kid})


def test_a_proof_is_no_token_and_a_token_no_proof() -> None:
    made = detached.sign(content(), SIGNER)
    head, _, signature = made.split(".")
    payload = base64.urlsafe_b64encode(content()).rstrip(b"=").decode()
    with pytest.raises(FormatError):
        detached.verify_token(f"{head}.{payload}.{signature}", {SIGNER.kid})
    token = SIGNER.sign({"kid": SIGNER.kid, "jwk": SIGNER.public_jwk()}, {"exp": 1})
    assert detached.verify_token(token, {SIGNER.kid}) == {"exp": 1}
    head, _, signature = token.split(".")
    with pytest.raises(CocosError):
        detached.verify(f"{head}..{signature}", content(), {SIGNER.kid})


def test_the_key_is_the_named_one_and_no_other_algorithm() -> None:
    made, stranger = detached.sign(content(), SIGNER), SigningKey.generate()
    with pytest.raises(AuthenticationError, match=SIGNER.kid):
        detached.verify(made, content(), {stranger.kid})
    with pytest.raises(AuthenticationError):
        detached.verify(made, content(), set())
    for header in (b'{"alg":"none","jwk":{}}', b'{"alg":"ES256"}', b"[]", b"{}"):
        text = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
        with pytest.raises(CocosError):
            detached.verify(f"{text}..{made.rpartition('.')[2]}", content(), {SIGNER.kid})


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda b: f"{b.hex()}..{b.hex()}"))
def test_no_text_crashes_the_check(text: str) -> None:
    with pytest.raises(CocosError):
        detached.verify(text, content(), {SIGNER.kid})


@pytest.mark.parametrize("nonce", ["", "a" * 21, "a" * 87, "a" * 30 + "=", "é" * 30, "a b" * 10])
def test_nonces_that_are_refused(nonce: str) -> None:
    with pytest.raises(FormatError):
        proof.check_nonce(nonce)
