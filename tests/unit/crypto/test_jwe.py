# SPDX-License-Identifier: Apache-2.0
"""Resources to TEE keys: the vector of kbs.md §6, an independent library, attacks."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe as jose
from joserfc.jwk import ECKey, RSAKey

from cocos.crypto import _content, _keywrap, early_jwe, jwe
from cocos.crypto.tee_key import ALGORITHMS, EC_P521, RSA, RSA_EARLY, TeeKeyPair
from cocos.errors import ConfigError, FormatError, IntegrityError, TooLargeError

VECTOR_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
    "y": "44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
}
VECTOR_D = "7xM-tcWD3C7amIO0UODiwzyzibsvhc-VBY1y_V7Fsqs"
VECTOR = {
    "protected": "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJtbmdjcHRCVnBfTU5ESl80ZVRiSE9mYUJidlgxNXl0TGxHUUVzS0dvT3lvIiwieSI6IndaLUVLVVhxS19aYW9XU2JLd0xfZVlWTWpWN1B6VUE0WXVpcGZxWnNjY0UifX0",
    "encrypted_key": "ZMLfE3zPT1dViRCScPe6p5Dd8-MA9qdh9qQP135JmAuJXp_VGXlzVw",
    "iv": "AAECAwQFBgcICQoL",
    "ciphertext": "L2e6d6o",
    "tag": "2XYEWr4ZVp1RCBc8HJWHdA",
}


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header(response: dict[str, str]) -> str:
    return unb64u(response["protected"]).decode()


@pytest.fixture(scope="module")
def rsa_pair() -> TeeKeyPair:
    return TeeKeyPair.generate(RSA)


@pytest.fixture(scope="module")
def early_pair() -> TeeKeyPair:
    return TeeKeyPair.generate(RSA_EARLY)


@pytest.fixture
def pair() -> TeeKeyPair:
    return TeeKeyPair.generate()


def vector_pair() -> TeeKeyPair:
    key = ec.derive_private_key(int.from_bytes(unb64u(VECTOR_D), "big"), ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return TeeKeyPair.from_pem(pem)


def test_vector_key_and_response() -> None:
    pair = vector_pair()
    assert pair.public_jwk() == VECTOR_JWK
    assert pair.decrypt(VECTOR) == b"hello"


EVERY = (*ALGORITHMS, RSA_EARLY)


@pytest.mark.parametrize("algorithm", EVERY)
def test_round_trip(algorithm: str) -> None:
    pair = TeeKeyPair.generate(algorithm)
    for plaintext in (b"", b"hello", bytes(3_000_000)):
        assert pair.decrypt(jwe.encrypt(plaintext, pair.public_jwk())) == plaintext
    again = TeeKeyPair.from_pem(pair.pem(), early=algorithm == RSA_EARLY)
    assert again.public_jwk() == pair.public_jwk()


def test_pem_forms(rsa_pair: TeeKeyPair, pair: TeeKeyPair) -> None:
    assert rsa_pair.pem().startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert pair.pem().startswith(b"-----BEGIN PRIVATE KEY-----")


def reserialised(response: dict[str, str]) -> dict[str, str]:
    """What the Rust guest makes of the header: alg, enc, then the rest sorted, compact."""
    members = json.loads(header(response))
    first = {name: members.pop(name) for name in ("alg", "enc")}
    rest = json.loads(json.dumps(members, sort_keys=True))
    text = json.dumps({**first, **rest}, separators=(",", ":"))
    return {**response, "protected": b64u(text.encode())}


@pytest.mark.parametrize("algorithm", EVERY)
def test_what_the_guest_serialises_again_is_what_was_sealed(algorithm: str) -> None:
    pair = TeeKeyPair.generate(algorithm)
    response = jwe.encrypt(b"secret", pair.public_jwk())
    assert reserialised(response) == response


def test_header_bytes_are_what_the_guest_serialises_again(
    pair: TeeKeyPair, rsa_pair: TeeKeyPair, early_pair: TeeKeyPair
) -> None:
    response = jwe.encrypt(b"x", pair.public_jwk())
    epk = json.loads(header(response))["epk"]
    assert header(response) == (
        '{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC",'
        f'"x":"{epk["x"]}","y":"{epk["y"]}"}}}}'
    )
    response = jwe.encrypt(b"x", rsa_pair.public_jwk())
    assert header(response) == '{"alg":"RSA-OAEP-256","enc":"A256GCM"}'
    response = jwe.encrypt(b"x", early_pair.public_jwk())
    assert header(response) == '{"alg":"RSA1_5","enc":"A256GCM"}'


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # it names RSA1_5
@pytest.mark.parametrize("algorithm", EVERY)
def test_independent_library_reads_ours(algorithm: str) -> None:
    pair = TeeKeyPair.generate(algorithm)
    response: Any = jwe.encrypt(b"secret", pair.public_jwk())
    kind: Any = RSAKey if algorithm in {RSA, RSA_EARLY} else ECKey
    names = [pair.public_jwk()["alg"], "A256GCM"]
    opened = jose.decrypt_json(response, kind.import_key(pair.pem()), algorithms=names)
    assert opened.plaintext == b"secret"


def test_we_read_an_independent_library(pair: TeeKeyPair) -> None:
    public: Any = dict(pair.public_jwk())
    names = ["ECDH-ES+A256KW", "A256GCM"]
    head = dict(zip(("alg", "enc"), names, strict=True))
    text = jose.encrypt_compact(head, b"secret", ECKey.import_key(public), algorithms=names)
    members = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    assert pair.decrypt(dict(zip(members, text.split("."), strict=True))) == b"secret"


def test_respelled_header_is_noticed() -> None:
    # RFC 7516: the received text is the additional data, so a relay cannot spell it anew.
    pair = vector_pair()
    spelled = json.dumps(json.loads(header(VECTOR)), indent=1).encode()
    with pytest.raises(IntegrityError):
        pair.decrypt({**VECTOR, "protected": b64u(spelled)})


@pytest.mark.parametrize("member", ["encrypted_key", "iv", "ciphertext", "tag"])
def test_every_changed_bit_is_noticed(member: str) -> None:
    raw = bytearray(unb64u(VECTOR[member]))
    raw[0] ^= 1
    with pytest.raises(IntegrityError):
        vector_pair().decrypt({**VECTOR, member: b64u(bytes(raw))})


@pytest.mark.parametrize("member", list(VECTOR))
@pytest.mark.parametrize("value", [None, 1, "", "é", "A=", "+/+/", {}, "AAAAA"])
def test_malformed_members(member: str, value: object) -> None:
    with pytest.raises((FormatError, IntegrityError)):
        vector_pair().decrypt({**VECTOR, member: value})


@pytest.mark.parametrize("member", list(VECTOR))
def test_missing_member(member: str) -> None:
    with pytest.raises(FormatError):
        vector_pair().decrypt({k: v for k, v in VECTOR.items() if k != member})


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', '[["enc","A256GCM"]]', "{", "", "{}"])
def test_a_header_that_is_no_object(text: str) -> None:
    with pytest.raises(FormatError):
        vector_pair().decrypt({**VECTOR, "protected": b64u(text.encode())})


@pytest.mark.parametrize("size", [0, 4, 12, 15, 17])
def test_the_border_between_ciphertext_and_tag(size: int) -> None:
    """Together they are the same bytes; a resource has one spelling."""
    sealed = unb64u(VECTOR["ciphertext"]) + unb64u(VECTOR["tag"])
    border = len(sealed) - size
    moved = {"ciphertext": b64u(sealed[:border]), "tag": b64u(sealed[border:])}
    with pytest.raises(FormatError, match="12 and 16 bytes"):
        vector_pair().decrypt({**VECTOR, **moved})


@pytest.mark.parametrize("size", [16, 24])
def test_a_sender_cannot_choose_a_shorter_key(pair: TeeKeyPair, size: int) -> None:
    cek, key = bytes(size), jwe.load(pair.public_jwk())
    header, encrypted_key = _keywrap.wrap(cek, key, "ECDH-ES+A256KW")
    protected = _content.protect({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", **header})
    response = {
        "protected": protected,
        "encrypted_key": b64u(encrypted_key),
        **_content.encrypt(b"x", cek, protected),
    }
    with pytest.raises(IntegrityError, match="not 32 bytes"):
        pair.decrypt(response)


class Long(bytes):
    """Bytes that say that they are many."""

    length = 0

    def __len__(self) -> int:
        return self.length


def test_what_is_too_long_for_one_piece() -> None:
    """What is encrypted can be decrypted: there the tag counts, too."""
    data = Long(b"x")
    data.length = 2**31 - 1 - 16
    assert _content.within_limit(data) is data
    data.length += 1
    with pytest.raises(TooLargeError):
        _content.within_limit(data)
    with pytest.raises(TooLargeError):
        jwe.encrypt(data, VECTOR_JWK)


def test_swapped_key(pair: TeeKeyPair) -> None:
    other = TeeKeyPair.generate()
    with pytest.raises(IntegrityError):
        other.decrypt(jwe.encrypt(b"x", pair.public_jwk()))


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "dir"},
        {"alg": "RSA-OAEP-256"},
        {"alg": "RSA1_5"},
        {"alg": None},
        {"enc": "A128GCM"},
        {"enc": "none"},
        {"zip": "DEF"},
        {"crit": ["exp"]},
        {"apu": "QQ"},
        {"epk": None},
        {"epk": {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}},
        {"epk": {**TeeKeyPair.generate(EC_P521).public_jwk()}},
    ],
)
def test_algorithm_confusion(change: dict[str, Any]) -> None:
    changed = {**json.loads(header(VECTOR)), **change}
    with pytest.raises(FormatError):
        vector_pair().decrypt({**VECTOR, "protected": b64u(json.dumps(changed).encode())})


def test_invalid_curve_ephemeral_key() -> None:
    changed = json.loads(header(VECTOR))
    changed["epk"]["y"] = b64u(bytes(31) + b"\x05")
    with pytest.raises(FormatError, match="not a point"):
        vector_pair().decrypt({**VECTOR, "protected": b64u(json.dumps(changed).encode())})


def test_rsa_key_refuses_ecdh_header(rsa_pair: TeeKeyPair) -> None:
    with pytest.raises(FormatError):
        rsa_pair.decrypt(VECTOR)


def test_further_additional_data_is_refused() -> None:
    with pytest.raises(FormatError):
        vector_pair().decrypt({**VECTOR, "aad": "QQ"})


@pytest.mark.parametrize(
    "change",
    [
        {"y": b64u(bytes(31) + b"\x05")},
        {"x": b64u(bytes(32)), "y": b64u(bytes(32))},
        {"x": VECTOR_JWK["x"] + "AA"},
        {"x": b64u(bytes(31))},
        {"x": b64u(b"\x00" + unb64u(VECTOR_JWK["x"]))},
        {"y": b64u(b"\x00" + unb64u(VECTOR_JWK["y"]))},
        {"x": VECTOR_JWK["x"] + "="},
        {"x": None},
        {"x": 5},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"crv": "P-521"},
        {"crv": []},
        {"crv": None},
        {"alg": "ECDH-ES"},
        {"alg": "RSA-OAEP-256"},
        {"alg": None},
        {"kty": "OKP"},
        {"kty": "oct"},
        {"kty": None},
    ],
)
def test_bad_ec_keys(change: dict[str, Any]) -> None:
    for use in (jwe.check_public_jwk, lambda jwk: jwe.encrypt(b"x", jwk)):
        with pytest.raises(FormatError):
            use({**VECTOR_JWK, **change})
    jwe.check_public_jwk(VECTOR_JWK)


@pytest.mark.parametrize(
    "change",
    [{"crv": []}, {"crv": None}, {"crv": "secp256k1"}, {"crv": "P-521"}, {"kty": "RSA"}],
)
def test_points_of_no_curve(change: dict[str, Any]) -> None:
    """Where no list of algorithms stands before it, as with ephemeral keys."""
    with pytest.raises(FormatError):
        _keywrap.load_ec({**VECTOR_JWK, **change}, "it")
    assert _keywrap.load_ec(VECTOR_JWK, "it").curve.name == "secp256r1"


def rsa_jwk(n: int, e: int = 65537) -> dict[str, str]:
    def text(number: int) -> str:
        return b64u(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))

    return {"kty": "RSA", "alg": "RSA-OAEP-256", "n": text(n), "e": text(e)}


def test_bad_rsa_keys(rsa_pair: TeeKeyPair) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the attack
    good = rsa_pair.public_jwk()
    n = int.from_bytes(unb64u(good["n"]), "big")
    bad: list[dict[str, Any]] = [
        rsa_jwk(short.public_key().public_numbers().n),
        rsa_jwk(n, 1),
        rsa_jwk(n, 2),
        rsa_jwk(n, 0),
        rsa_jwk(n + 1),
        rsa_jwk(0),
        rsa_jwk(1 << 100_000 | 1),
        rsa_jwk(n, n),
        rsa_jwk(n, (1 << 64) + 1),
        {**good, "alg": "RSA-OAEP"},
        {**good, "alg": []},
        {**good, "n": None},
    ]
    for jwk in bad:
        with pytest.raises(FormatError):
            jwe.check_public_jwk(jwk)
    jwe.check_public_jwk(good)
    jwe.check_public_jwk(rsa_jwk(n, (1 << 64) - 1))


def test_numbers_of_rsa_keys_have_one_spelling(rsa_pair: TeeKeyPair) -> None:
    """RFC 7518 §2: no zeros before them; the text of the key is what evidence is bound to."""
    jwk = rsa_pair.public_jwk()
    assert jwk["e"] == "AQAB"
    modulus = unb64u(jwk["n"])
    assert len(modulus) == 3072 // 8
    assert modulus[0]


def test_private_keys_that_are_none() -> None:
    ed = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    k1 = ec.generate_private_key(ec.SECP256K1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for pem in (b"", b"nonsense", ed, locked, k1):
        with pytest.raises(FormatError):
            TeeKeyPair.from_pem(pem)
    with pytest.raises(ConfigError):
        TeeKeyPair.generate("RSA-OAEP")
    with pytest.raises(FormatError):
        TeeKeyPair.from_pem(TeeKeyPair.generate().pem(), early=True)  # no RSA key


# --- protocol 0.1.1, and RSA1_5 ---


def test_the_early_form(early_pair: TeeKeyPair) -> None:
    response = early_jwe.encrypt(b"secret", early_pair.public_jwk())
    assert response["protected"] == '{"alg":"RSA1_5","enc":"A256GCM"}'
    assert response["tag"] == ""
    # By the letter of kbs.md §6, with nothing of ours.
    key = serialization.load_pem_private_key(early_pair.pem(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    cek = key.decrypt(unb64u(response["encrypted_key"]), padding.PKCS1v15())
    sealed = unb64u(response["ciphertext"])
    assert AESGCM(cek).decrypt(unb64u(response["iv"]), sealed, None) == b"secret"
    assert early_pair.decrypt_early(response) == b"secret"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_rsa1_5_in_the_early_form(algorithm: str) -> None:
    pair = TeeKeyPair.generate(algorithm)
    for use in (early_jwe.check_public_jwk, lambda jwk: early_jwe.encrypt(b"x", jwk)):
        with pytest.raises(FormatError, match="RSA1_5"):
            use(pair.public_jwk())
    with pytest.raises(FormatError):
        pair.decrypt_early(VECTOR)


def test_an_oaep_key_opens_no_rsa1_5(rsa_pair: TeeKeyPair) -> None:
    named = {**rsa_pair.public_jwk(), "alg": RSA_EARLY}
    with pytest.raises(FormatError, match="RSA1_5 keys only"):
        rsa_pair.decrypt_early(early_jwe.encrypt(b"x", named))


def test_forms_are_not_mixed(early_pair: TeeKeyPair) -> None:
    with pytest.raises(FormatError):
        early_pair.decrypt(early_jwe.encrypt(b"x", early_pair.public_jwk()))
    with pytest.raises(FormatError):
        early_pair.decrypt_early(jwe.encrypt(b"x", early_pair.public_jwk()))


@pytest.mark.parametrize("early", [True, False])
def test_a_wrong_padding_looks_like_a_wrong_key(early_pair: TeeKeyPair, early: bool) -> None:
    """No oracle: whoever changes messages must not learn where they began to be wrong."""
    public, other = early_pair.public_jwk(), TeeKeyPair.generate(RSA_EARLY).public_jwk()
    encrypt = early_jwe.encrypt if early else jwe.encrypt
    decrypt = early_pair.decrypt_early if early else early_pair.decrypt
    good = encrypt(b"x", public)
    key = serialization.load_pem_private_key(early_pair.pem(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    short = key.public_key().encrypt(bytes(16), padding.PKCS1v15())
    wrong = [
        {**good, "encrypted_key": encrypt(b"x", other)["encrypted_key"]},  # padding
        {**good, "encrypted_key": b64u(short)},  # right padding, no key for A256GCM
        {**good, "encrypted_key": encrypt(b"x", public)["encrypted_key"]},  # another key
    ]
    messages = set()
    for response in wrong:
        with pytest.raises(IntegrityError) as caught:
            decrypt(response)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_sender_cannot_choose_rsa1_5(rsa_pair: TeeKeyPair) -> None:
    response = jwe.encrypt(b"x", {**rsa_pair.public_jwk(), "alg": "RSA1_5"})
    with pytest.raises(FormatError, match="RSA-OAEP-256"):
        rsa_pair.decrypt(response)


@pytest.mark.parametrize(
    "change",
    [
        {"protected": '{"alg":"RSA-OAEP-256","enc":"A256GCM"}'},
        {"protected": '{"alg":"RSA1_5","enc":"A128GCM"}'},
        {"protected": '{"alg":"none","enc":"A256GCM"}'},
        {"protected": "[]"},
        {"protected": "[" * 100_000},
        {"protected": None},
        {"tag": "AAAA"},
        {"tag": None},
        {"iv": "AAAA"},
        {"iv": None},
        {"encrypted_key": "="},
        {"ciphertext": 5},
    ],
)
def test_malformed_early_resources(early_pair: TeeKeyPair, change: dict[str, Any]) -> None:
    good = early_jwe.encrypt(b"x", early_pair.public_jwk())
    with pytest.raises(FormatError):
        early_pair.decrypt_early({**good, **change})


@pytest.mark.parametrize("name", ["ciphertext", "iv"])
def test_changed_early_resources(early_pair: TeeKeyPair, name: str) -> None:
    good = early_jwe.encrypt(b"x", early_pair.public_jwk())
    raw = bytearray(unb64u(good[name]))
    raw[0] ^= 1
    for changed in (bytes(raw), raw[:1] if name == "ciphertext" else bytes(raw)):
        with pytest.raises(IntegrityError):
            early_pair.decrypt_early({**good, name: b64u(bytes(changed))})


@pytest.mark.parametrize(
    ("jwk", "named"),
    [
        ({"kty": "EC", "crv": "P-384", "alg": "ECDH-ES+A256KW"}, "P-384"),
        ({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"}, "'ECDH-ES'"),
        ({"kty": "OKP", "crv": "X25519"}, "OKP"),
        ({"kty": "AKP", "alg": "ML-KEM-768+A192KW"}, "AKP"),
        ({"kty": "RSA", "alg": "RSA-OAEP"}, "'RSA-OAEP'"),
    ],
)
def test_a_refused_kind_of_key_is_named(jwk: dict[str, str], named: str) -> None:
    with pytest.raises(FormatError, match=named) as caught:
        jwe.check_public_jwk(jwk)
    assert caught.value.hint


EC = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW"}


@pytest.mark.parametrize(
    ("jwk", "served"),
    [
        (EC, True),
        ({**EC, "crv": "P-521"}, True),
        ({"kty": "RSA", "alg": "RSA-OAEP-256"}, True),
        ({"kty": "RSA", "alg": "RSA1_5"}, True),
        ({**EC, "crv": "P-384"}, False),
        ({**EC, "alg": "RSA-OAEP-256"}, False),
        ({**EC, "kty": "RSA"}, False),
        ({"kty": "OKP", "alg": "RSA-OAEP-256"}, False),
        ({"kty": "rsa", "alg": "RSA-OAEP-256"}, False),
        ({"kty": None, "alg": "RSA-OAEP-256"}, False),
        ({"kty": [], "alg": "RSA-OAEP-256"}, False),
        ({"kty": "RSA", "alg": "RSA-OAEP"}, False),
        ({"kty": "RSA", "alg": None}, False),
        ({"kty": "RSA", "alg": {}}, False),
        ({}, False),
    ],
)
def test_kinds_of_keys_that_resources_are_encrypted_to(
    jwk: dict[str, Any], *, served: bool
) -> None:
    assert jwe.serves(jwk) is served
