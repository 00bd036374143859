# SPDX-License-Identifier: Apache-2.0
"""Private options and parameters that the key provider must refuse, each on its own."""

from pathlib import Path

import pytest

from cocos.crypto import kek
from cocos.errors import ConfigError, FormatError, NotFoundError
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider import parameters
from cocos.keyprovider.service import SAMPLE_KEY_ID, KeyProvider
from cocos.wire import ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

URI = ResourceUri.parse("kbs:///default/key/1")
KEY = bytes(range(32))
GOOD = {"symkey": bytes(32), "cipheroptions": {"nonce": bytes(16)}}
BAD = [
    (b"", "malformed"),
    (b"[]", "malformed"),
    (encode({**GOOD, "symkey": bytes(31)}), "31 bytes long, not 32"),
    (encode({**GOOD, "symkey": b""}), "0 bytes long, not 32"),
    (encode({**GOOD, "cipheroptions": {}}), "nonce is 0 bytes long"),
    (encode({**GOOD, "cipheroptions": {"nonce": bytes(15)}}), "nonce is 15 bytes long"),
    (encode({**GOOD, "cipheroptions": {"nonce": bytes(17)}}), "nonce is 17 bytes long"),
]


@pytest.fixture
def own(tmp_path: Path) -> KeyProvider:
    folder = KeyFolder(tmp_path)
    folder.store(ResourcePath.parse("default/key/1"), KEY)
    return KeyProvider(folder=folder)


async def test_what_is_right_is_wrapped_and_unwrapped(own: KeyProvider) -> None:
    reply = await own.wrap(ocicrypt.wrap_input(encode(GOOD), [f"keyid={URI}"]))
    packet = ocicrypt.parse_wrap_output(reply)
    opened = await own.unwrap(ocicrypt.unwrap_input(packet, ["cc_kbc::null"]))
    assert ocicrypt.parse_unwrap_output(opened) == encode(GOOD)


@pytest.mark.parametrize(("options", "words"), BAD)
async def test_options_that_nobody_should_encrypt_by(
    own: KeyProvider, options: bytes, words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        await own.wrap(ocicrypt.wrap_input(options, [f"keyid={URI}"]))


@pytest.mark.parametrize(("options", "words"), BAD)
async def test_options_that_nobody_should_decrypt_by(
    own: KeyProvider, options: bytes, words: str
) -> None:
    """Wrapped by somebody who has the key, so that the packet itself holds."""
    packet = ocicrypt.Packet(URI, kek.wrap(KEY, options)).encode()
    with pytest.raises(FormatError, match=words):
        await own.unwrap(ocicrypt.unwrap_input(packet, ["cc_kbc::null"]))


@pytest.mark.parametrize(
    ("texts", "url"),
    [
        ([], None),
        (["cc_kbc::null", "cc_kbc::null"], None),
        (["cc_kbc::http://a:1"], "http://a:1"),
        (["cc_kbc::null", "cc_kbc::http://a:1"], "http://a:1"),
        (["cc_kbc::http://a:1", "cc_kbc::http://a:1"], "http://a:1"),
    ],
)
def test_one_kbs(texts: list[str], url: str | None) -> None:
    assert parameters.parse_unwrap(texts) == url


@pytest.mark.parametrize(
    "texts",
    [
        ["cc_kbc::http://a:1", "cc_kbc::http://b:1"],
        ["cc_kbc::http://a:1", "cc_kbc::null", "cc_kbc::http://a:2"],
    ],
)
async def test_two_kbs_are_refused_before_either_is_asked(
    own: KeyProvider, texts: list[str]
) -> None:
    packet = ocicrypt.Packet(URI, kek.wrap(KEY, encode(GOOD))).encode()
    with pytest.raises(FormatError, match="two different KBS"):
        await own.unwrap(ocicrypt.unwrap_input(packet, texts))


async def test_one_name_for_a_layer(own: KeyProvider) -> None:
    for given in ([], [f"keyid={URI}", f"keyid={URI}"]):
        with pytest.raises(FormatError):
            await own.wrap(ocicrypt.wrap_input(encode(GOOD), given))


async def wrapped_by(own: KeyProvider, parameter: str) -> ocicrypt.Packet:
    reply = await own.answer(ocicrypt.wrap_input(encode(GOOD), [parameter]))
    return ocicrypt.Packet.parse(ocicrypt.parse_wrap_output(reply))


async def test_the_command_form_does_both(own: KeyProvider) -> None:
    packet = await wrapped_by(own, f"keyid={URI}")
    opened = await own.answer(ocicrypt.unwrap_input(packet.encode(), ["cc_kbc::null"]))
    assert ocicrypt.parse_unwrap_output(opened) == encode(GOOD)


async def test_the_key_that_everybody_knows_is_used_by_its_insecure_name_only(
    own: KeyProvider,
) -> None:
    for given in ("sample=true", f"sample=true::keyid={URI}"):
        with pytest.raises(ConfigError, match="everybody knows") as caught:
            await wrapped_by(own, given)
        assert "--insecure-sample" in (caught.value.hint or "")
    insecure = KeyProvider(insecure_sample=True)
    packet = await wrapped_by(insecure, "sample=true")
    assert packet.key == SAMPLE_KEY_ID
    with pytest.raises(NotFoundError):  # allowed is not asked for
        await wrapped_by(insecure, "Enabled")


async def test_without_a_registrar_no_key_is_made(own: KeyProvider, tmp_path: Path) -> None:
    """Nobody but this folder would have it; nothing says so until the image does not open."""
    for text in ("Enabled", "keyid=kbs:///default/key/2"):
        with pytest.raises(NotFoundError, match=f"there is no key .* in {tmp_path}"):
            await wrapped_by(own, text)


async def test_a_key_file_without_a_name_gets_one_of_its_own(
    own: KeyProvider, tmp_path: Path
) -> None:
    (tmp_path / "kek").write_bytes(bytes(32))
    one, two = [await wrapped_by(own, f"keypath={tmp_path}/kek") for _ in range(2)]
    assert one.key != two.key
    assert str(one.key).startswith("kbs:///default/image-kek/")
    assert kek.unwrap(bytes(32), one.wrapped, "it") == encode(GOOD)


@pytest.mark.parametrize("uri", ["kbs:///default/key/2", "kbs+pkcs11:///default/key/1"])
async def test_a_key_that_nobody_can_be_asked_for(own: KeyProvider, uri: str) -> None:
    """A plugin's key is not the folder's of the same path."""
    packet = ocicrypt.Packet(ResourceUri.parse(uri), kek.wrap(KEY, encode(GOOD))).encode()
    with pytest.raises(ConfigError, match="no KBS can be asked"):
        await own.unwrap(ocicrypt.unwrap_input(packet, ["cc_kbc::null"]))
