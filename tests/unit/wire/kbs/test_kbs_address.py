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
    # Each kind of proof shows as what it is, and as nothing else.
    known = {By.CERTIFICATE: address.fingerprints, By.TOKEN_KEY: address.token_keys}
    assert {kind for kind, values in known.items() if values} == {by} & set(known)
    assert known.get(by, frozenset()) == set(address.proofs) == set(address.claim()["proofs"])
    assert address.ca is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "kbs", "//kbs", "http:kbs", "http:/kbs", "http://", "http:///kbs", "ftp://kbs"),
        *("http://kbs:x", "http://kbs:0", "http://kbs:65536", "http://kbs:+80", "http://kbs:8_0"),
        *("http://user@kbs", "http://kbs?a", "http://kbs\\a", "http://kbs/%61", "http://kbs/a;b"),
        # Blanks, anywhere; urlsplit drops some of them, and Pythons differ in which.
        *(" http://kbs", "http://kbs ", "http://k bs", "http://kbs/a b", f"http://kbs#{KEY} "),
        *("\thttp://kbs", "http://k\tbs", "http://kbs\n", "http://k\rbs", "http://k\0bs"),
        # A letter that is one of ASCII as soon as somebody makes it small.
        *("http://\u212abs", "http://kbs/\u212a", f"http://kbs#{KEY}\u212a", "http://kbs:\u0661"),
        # Folders that lead elsewhere.
        *("http://kbs/..", "http://kbs/../a", "http://kbs/a/./b", "http://kbs//a"),
        # What a resolver takes for another spelling of a number.
        *("http://127.1", "http://1", "http://0x7f.1", "http://2130706433", "http://01.2.3.4"),
        # More than an IPv6 address between or behind brackets.
        *("http://[::1]x", "http://[::1]x:8", "http://x[::1]", "http://[v1.a]", "http://[kbs]"),
        *("http://[127.0.0.1]", "http://[]", "http://[::1%25eth0]", "http://[::ffff:127.0.0.1]"),
        # What nobody can be known by.
        *("http://kbs#", "http://kbs#x", "http://kbs#x=1", "http://kbs#token-key", "http://kbs#&"),
        *(f"http://kbs#{KEY}&", f"http://kbs#{KEY}&x=1", f"http://kbs#{KEY}#{KEY}"),
        *(f"https://kbs#{KEY}&{CERT}", f"http://kbs#{KEY}&{KEY}", f"https://kbs#{CERT}&{CERT}"),
        *(f"http://kbs#{KEY}A", f"http://kbs#{KEY[:-1]}", f"http://kbs#{KEY[:-1]}B"),
        *(f"https://kbs#{CERT}0", f"https://kbs#{CERT[:-1]}", f"https://kbs#{CERT.upper()}"),
        *("https://kbs#cert-sha256=", "https://kbs#cert-sha256=" + "g" * 64),
        *("https://kbs#ca=", "https://kbs#ca=A", "https://kbs#ca=AB", "https://kbs#ca=AA=="),
        "https://kbs#public-cas=A",
        # Without TLS nobody shows a certificate.
        *(f"http://kbs#{CERT}", "http://kbs#ca=AAAA"),
    ],
)
def test_texts_that_are_no_address(text: str) -> None:
    with pytest.raises(FormatError):
        KbsAddress.parse(text)


def test_a_ca_is_not_named_twice() -> None:
    for text in (f"https://kbs#{KEY}", f"https://kbs#{CERT}", "https://kbs#ca=AAAA"):
        with pytest.raises(FormatError, match="says it twice"):
            KbsAddress.parse(text).with_ca(PEM)
    with pytest.raises(FormatError, match="shows no certificate"):
        KbsAddress.parse("http://kbs").with_ca(PEM)


def pems(*ders: bytes) -> str:
    texts = (base64.b64encode(each).decode() for each in ders)
    return "".join(f"-----BEGIN CERTIFICATE-----\n{x}\n-----END CERTIFICATE-----\n" for x in texts)


def test_how_many_proofs_an_address_has() -> None:
    keys = [f"token-key={'A' * 42}{last}" for last in "AEIMQ"]
    assert len(KbsAddress.parse(f"http://kbs#{'&'.join(keys[:4])}").token_keys) == 4
    with pytest.raises(FormatError, match="more than 4"):
        KbsAddress.parse(f"http://kbs#{'&'.join(keys)}")
    address = KbsAddress.parse("https://kbs")
    assert len(address.with_ca(pems(b"1", b"2", b"3", b"4")).proofs) == 4
    with pytest.raises(FormatError, match="more than 4"):
        address.with_ca(pems(b"1", b"2", b"3", b"4", b"5"))


def test_how_long_an_address_is() -> None:
    longest = "https://kbs/" + "a" * (8192 - 12)
    assert KbsAddress.parse(longest).url == longest
    for text in (longest + "a", longest + "/", longest + f"#{KEY}"):
        with pytest.raises(FormatError):
            KbsAddress.parse(text)
    # However it comes to its proofs, it can be read again.
    for more, fits in (("", True), ("a", False)):
        address = KbsAddress.parse(longest[: 8192 - len("#ca=AAAA")] + more)
        known = KbsAddress.parse(f"https://kbs#{KEY}")
        named = KbsAddress.parse(longest[: 8192 - len(f"#{KEY}")] + more)
        if fits:
            made = (address.with_ca(pems(bytes(3))), named.trusted_like(known))
            assert [KbsAddress.parse(str(each)) for each in made] == list(made)
            assert {len(str(each)) for each in made} == {8192}
            continue
        with pytest.raises(FormatError, match="too long"):
            address.with_ca(pems(bytes(3)))
        with pytest.raises(FormatError, match="too long"):
            named.trusted_like(known)


def test_what_is_wrong_is_shown_in_part() -> None:
    text = "?" * 300
    with pytest.raises(FormatError) as caught:
        KbsAddress.parse(text)
    assert caught.value.message == f"this is not the URL of a KBS: {text[:200]!r}"


def test_a_password_is_not_shown() -> None:
    with pytest.raises(FormatError) as caught:
        KbsAddress.parse("http://user:hush@kbs")
    assert "hush" not in f"{caught.value.message} {caught.value.hint}"


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


@pytest.mark.parametrize(
    "pem",
    [
        *("", "x", MANY, PEM + "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN" + PEM),
        *(PEM[:-10], PEM.replace("M", "\u212a", 1), pems(b"1").replace("MQ==", "MR==")),
    ],
)
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
        ("https://kbs:1", "http://kbs:1", "https://kbs:1"),
    ],
)
def test_what_is_known_stays_known(named: str, configured: str, expected: str) -> None:
    told = KbsAddress.parse(configured)
    assert KbsAddress.parse(named).trusted_like(told) == KbsAddress.parse(expected)
    assert KbsAddress.parse(named).trusted_like(None) == KbsAddress.parse(named)


def test_claims_of_several() -> None:
    known, unknown = KbsAddress.parse(f"http://a#{KEY}"), KbsAddress.parse("http://b")
    assert claims_of([known, known]) == {
        "authenticated": True,
        "by": ["token-key"],
        "named": [known.claim()],
    }
    assert claims_of([known, unknown])["authenticated"] is False
    assert claims_of([known, None]) == {
        "authenticated": False,
        "by": ["nothing", "token-key"],
        "named": [
            known.claim(),
            {"url": None, "authenticated": False, "by": "nothing", "proofs": []},
        ],
    }
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
