# SPDX-License-Identifier: Apache-2.0
"""Every parser of the image family: what it writes it reads, and garbage is a FormatError."""

import base64
import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from cocos.crypto import kek
from cocos.crypto.kek import WrapType
from cocos.errors import CocosError, FormatError, IntegrityError
from cocos.host.images.skopeo_errors import translate
from cocos.keyprovider import parameters
from cocos.wire import oci, ocicrypt
from cocos.wire.kbs.protocol import ResourceUri

KEYS = st.binary(min_size=32, max_size=32)
SEGMENTS = st.from_regex(r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]{0,10}", fullmatch=True)
PATHS = st.tuples(SEGMENTS, SEGMENTS, SEGMENTS).map("/".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3)
    ),
)
PARSERS = [
    ocicrypt.parse_wrap,
    ocicrypt.parse_unwrap,
    ocicrypt.operation,
    ocicrypt.parse_wrap_output,
    ocicrypt.parse_unwrap_output,
    ocicrypt.check_options,
    ocicrypt.Packet.parse,
    oci.parse_manifest,
    oci.parse_config,
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__qualname__)
@given(data=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_a_format_error(parser: object, data: bytes) -> None:
    assert callable(parser)
    with pytest.raises(FormatError):
        parser(data)


TEXT_PARSERS = [
    parameters.parse_wrap,
    lambda text: parameters.parse_unwrap([text]),
    ocicrypt.parse_key_id,
    oci.Reference.parse,
    oci.parse_digest,
]


@pytest.mark.parametrize("parser", TEXT_PARSERS)
@given(
    text=st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            ["::", "=", "kbs://", "/", "cc_kbc", "keyid", "keypath", "sample", "true", "a", "["]
        ),
        max_size=8,
    ).map("".join)
)
def test_text_parsers_raise_only_our_error(parser: object, text: str) -> None:
    assert callable(parser)
    with contextlib.suppress(FormatError):
        parser(text)


@given(options=st.binary(max_size=300), texts=st.lists(st.text(max_size=40), min_size=1))
def test_requests_round_trip(options: bytes, texts: list[str]) -> None:
    wrap = ocicrypt.parse_wrap(ocicrypt.wrap_input(options, texts))
    assert (wrap.options, wrap.parameters) == (options, tuple(texts))
    unwrap = ocicrypt.parse_unwrap(ocicrypt.unwrap_input(options, texts))
    assert (unwrap.annotation, unwrap.parameters) == (options, tuple(texts))
    assert ocicrypt.operation(ocicrypt.wrap_input(options, texts)) == "keywrap"
    assert ocicrypt.operation(ocicrypt.unwrap_input(options, texts)) == "keyunwrap"


@given(data=st.binary(max_size=300))
def test_replies_are_arrays_and_both_forms_are_read(data: bytes) -> None:
    for write, read, half, member in (
        (ocicrypt.wrap_output, ocicrypt.parse_wrap_output, "keywrapresults", "annotation"),
        (ocicrypt.unwrap_output, ocicrypt.parse_unwrap_output, "keyunwrapresults", "optsdata"),
    ):
        reply = write(data)
        assert json.loads(reply) == {half: {member: list(data)}}
        assert read(reply) == data
        text = json.dumps({half: {member: base64.b64encode(data).decode()}})
        assert read(text.encode()) == data


@given(path=PATHS, key=KEYS, options=st.binary(max_size=200), kind=st.sampled_from(WrapType))
def test_packets_round_trip(path: str, key: bytes, options: bytes, kind: WrapType) -> None:
    wrapped = kek.wrap(key, options, kind)
    packet = ocicrypt.Packet(ResourceUri.parse(f"kbs:///{path}"), wrapped)
    data = packet.encode()
    assert list(json.loads(data)) == ["kid", "wrapped_data", "iv", "wrap_type"]
    again = ocicrypt.Packet.parse(data)
    assert again == packet
    assert kek.unwrap(key, again.wrapped, "it") == options


@given(key=KEYS, other=KEYS, options=st.binary(max_size=200), bit=st.integers(min_value=0))
def test_wrong_key_or_changed_packet_does_not_open(
    key: bytes, other: bytes, options: bytes, bit: int
) -> None:
    wrapped = kek.wrap(key, options)
    if other != key:
        with pytest.raises(IntegrityError):
            kek.unwrap(other, wrapped, "it")
    changed = bytearray(wrapped.iv + wrapped.data)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    torn = kek.Wrapped(wrapped.wrap_type, bytes(changed[:12]), bytes(changed[12:]))
    with pytest.raises(IntegrityError):
        kek.unwrap(key, torn, "it")


@pytest.mark.parametrize("size", [8, 11, 13, 16])
def test_an_iv_of_another_length(size: int) -> None:
    """The cipher would take it: GHASH makes any IV one, as the standard never meant here."""
    key, iv = kek.generate(), bytes(size)
    wrapped = kek.Wrapped(WrapType.A256GCM, iv, AESGCM(key).encrypt(iv, b"x", None))
    with pytest.raises(FormatError, match=f"{size} bytes long, not 12"):
        kek.unwrap(key, wrapped, "it")


@pytest.mark.parametrize("size", [0, 15])
def test_too_short_for_a_tag(size: int) -> None:
    wrapped = kek.Wrapped(WrapType.A256GCM, bytes(12), bytes(size))
    with pytest.raises(FormatError, match="too short"):
        kek.unwrap(kek.generate(), wrapped, "it")


@given(key=KEYS, other=KEYS, bit=st.integers(0, 40 * 8 - 1))
def test_keys_in_keys(key: bytes, other: bytes, bit: int) -> None:
    wrapped = kek.wrap_key(key, other)
    assert kek.unwrap_key(key, wrapped, "it") == other
    changed = bytearray(wrapped)
    changed[bit // 8] ^= 1 << bit % 8
    wrong = bytes([key[0] ^ 1]) + key[1:]
    for used, data in ((wrong, wrapped), (key, bytes(changed)), (key, wrapped[:-1]), (key, b"")):
        with pytest.raises(IntegrityError, match="does not open with it"):
            kek.unwrap_key(used, data, "it")


@pytest.mark.parametrize("size", [16, 24, 40])
def test_keys_of_another_length_in_keys(size: int) -> None:
    key = kek.generate()
    with pytest.raises(IntegrityError, match=f"{size} bytes long"):
        kek.unwrap_key(key, aes_key_wrap(key, bytes(size)), "it")


def test_base64_with_other_letters_is_no_key() -> None:
    text = base64.b64encode(bytes(range(32)))
    with pytest.raises(FormatError, match="is 45 bytes long"):
        kek.parse(text[:20] + b"!" + text[20:], "it")


def test_the_length_inside_base64_is_named() -> None:
    with pytest.raises(FormatError, match=r"25 bytes long \(base64 text of 16 bytes\)"):
        kek.parse(base64.b64encode(bytes(16)) + b"\n", "it")


@given(key=KEYS, newline=st.sampled_from([b"", b"\n", b"\r\n"]))
def test_every_form_of_a_key(key: bytes, newline: bytes) -> None:
    assert kek.parse(key, "it") == key
    assert kek.parse(base64.b64encode(key) + newline, "it") == key


@given(data=st.binary(max_size=100).filter(lambda data: len(data) != 32))
def test_a_wrong_length_is_named(data: bytes) -> None:
    with pytest.raises(FormatError, match=f"the key x is {len(data)} bytes long"):
        kek.parse(data, "the key x")
    encoded = base64.b64encode(data) + b"\n"
    if len(encoded) != 32:
        with pytest.raises(FormatError, match=f"is {len(encoded)} bytes long"):
            kek.parse(encoded, "the key x")


@given(path=PATHS, host=st.sampled_from(["", "kbs.example", "kbs.example:8080"]))
def test_key_ids_are_normalised(path: str, host: str) -> None:
    expected = f"kbs:///{path}"
    forms = [f"kbs://{host}/{path}", f"kbs+resource://{host}/{path}", f"/{path}", path]
    if host:
        forms.append(f"{host}/{path}")
    assert {str(ocicrypt.parse_key_id(form)) for form in forms} == {expected}


@given(
    path=PATHS,
    file=st.from_regex(r"/[a-z/.=]{1,20}", fullmatch=True),
    kind=st.sampled_from(WrapType),
    order=st.permutations([0, 1, 2, 3]),
)
def test_wrap_parameters_in_any_order(
    path: str, file: str, kind: WrapType, order: list[int]
) -> None:
    pieces = [f"keyid=kbs:///{path}", f"keypath={file}", f"algorithm={kind.value}", "sample=true"]
    found = parameters.parse_wrap("::".join(pieces[index] for index in order))
    assert found == parameters.WrapParameters(
        ResourceUri.parse(f"kbs:///{path}"), Path(file), kind, sample=True
    )
    for text in (f"cc_kbc::kbs:///{path}", f"kbs:///{path}", f"keyid=kbs:///{path}"):
        assert parameters.parse_wrap(text).key == ResourceUri.parse(f"kbs:///{path}")


@given(stderr=st.text(max_size=300), status=st.integers(-20, 255))
def test_any_last_words_become_one_error(stderr: str, status: int) -> None:
    error = translate(stderr, exit_status=status, subject="copying")
    assert isinstance(error, CocosError)
    assert error.message.startswith("copying")


@given(
    name=st.from_regex(
        # With a registry: what has none is one of Docker's.
        r"[a-z0-9]{1,8}(\.[a-z]{2,3}|(\.[a-z]{2,3})?:[0-9]{1,5})(/[a-z0-9]{1,8}){1,3}",
        fullmatch=True,
    ),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    data=st.binary(max_size=10),
)
def test_references_round_trip(name: str, tag: str, data: bytes) -> None:
    text = f"docker://{name}:{tag}"
    reference = oci.Reference.parse(text)
    assert str(reference) == text
    pinned = reference.pinned(oci.digest_of(data))
    assert oci.Reference.parse(str(pinned)) == pinned
    assert str(pinned) == f"docker://{name}@{oci.digest_of(data)}"
