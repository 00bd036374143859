# SPDX-License-Identifier: Apache-2.0
"""The text behind ``provider:attestation-agent:``: every form, and what is near one."""

from pathlib import Path

import pytest

from cocos.crypto.kek import WrapType
from cocos.errors import FormatError
from cocos.keyprovider.keys import resource_path
from cocos.keyprovider.parameters import WrapParameters, parse_unwrap, parse_wrap
from cocos.wire.kbs.protocol import ResourceUri

URI = "kbs:///default/key/1"
KEY = ResourceUri.parse(URI)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", WrapParameters()),
        ("Enabled", WrapParameters()),
        ("null", WrapParameters()),
        ("cc_kbc::null", WrapParameters()),
        ("cc_kbc", WrapParameters()),
        (URI, WrapParameters(KEY)),
        (f"cc_kbc::{URI}", WrapParameters(KEY)),
        (f"{URI}::cc_kbc", WrapParameters(KEY)),
        (f"keyid={URI}", WrapParameters(KEY)),
        ("default/key/1", WrapParameters(KEY)),
        (f"{URI}?a=b", WrapParameters(ResourceUri.parse(f"{URI}?a=b"))),
        (f"keyid={URI}::keypath=/k=1", WrapParameters(KEY, Path("/k=1"))),
        ("keypath=/k::algorithm=A256CTR", WrapParameters(None, Path("/k"), WrapType.A256CTR)),
        ("sample=true", WrapParameters(sample=True)),
        ("sample=false", WrapParameters(sample=False)),
    ],
)
def test_forms(text: str, wanted: WrapParameters) -> None:
    assert parse_wrap(text) == wanted
    assert parse_wrap(text).sample is wanted.sample


def test_nothing_is_asked_for_by_default() -> None:
    nothing = parse_wrap("")
    assert (nothing.key, nothing.key_path, nothing.sample) == (None, None, False)
    assert nothing.wrap_type is WrapType.A256GCM


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"keyid={URI}::keyid={URI}", "keyid is given twice"),
        (f"{URI}::keyid={URI}", "keyid is given twice"),
        (f"{URI}::{URI}", "keyid is given twice"),
        ("sample=true::sample=true", "sample is given twice"),
        ("keypath=/a::keypath=/a", "keypath is given twice"),
        (f"keyld={URI}", "unknown encryption parameter 'keyld="),
        ("samples=true", "unknown encryption parameter"),
        ("=x", "unknown encryption parameter"),
        ("keypath=", "keypath has no value"),
        ("keypath=/a\0b", "keypath has no value"),
        ("keyid=", "."),
        ("no key", "."),
        ("sample=", "neither true nor false"),
        ("sample=True", "neither true nor false"),
        ("sample=1", "neither true nor false"),
        ("algorithm=", "unknown algorithm"),
        ("algorithm=a256gcm", "unknown algorithm"),
    ],
)
def test_what_may_be_a_typing_mistake_is_refused(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_wrap(text)


def test_an_unknown_piece_is_cut_in_the_message() -> None:
    with pytest.raises(FormatError) as caught:
        parse_wrap("x=" + "y" * 10_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", None),
        ("null", None),
        ("Enabled", None),
        ("cc_kbc", None),
        ("offline_fs_kbc", None),
        ("cc_kbc::null", None),
        ("cc_kbc::", None),
        ("offline_fs_kbc::null", None),
        ("cc_kbc::http://a:1", "http://a:1"),
        ("http://a:1", "http://a:1"),
        ("::http://a:1", "http://a:1"),
    ],
)
def test_whom_to_ask(text: str, url: str | None) -> None:
    assert parse_unwrap([text]) == url


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "CC_KBC::null x",
        "KBC::http://a:1",
        "cc_kbc::cc_kbc",
        "cc_kbc::a_kbc",
        "x::http://a:1",
        "cc_kbc::ftp://a",
        "cc_kbc::http://",
        "Cc_kbc",
    ],
)
def test_whom_nobody_can_ask(text: str) -> None:
    with pytest.raises(FormatError, match="is not a decryption parameter") as caught:
        parse_unwrap([text])
    assert caught.value.hint == "cc_kbc::null or cc_kbc::URL"


def test_which_resources_have_a_path() -> None:
    assert str(resource_path(KEY)) == "default/key/1"
    for text in ("kbs+pkcs11:///default/key/1", f"{URI}?a=b", "kbs+resource2:///default/key/1"):
        assert resource_path(ResourceUri.parse(text)) is None
    assert resource_path(ResourceUri("resource", "no path")) is None


def test_a_password_does_not_show() -> None:
    with pytest.raises(FormatError, match="this is not a decryption parameter") as caught:
        parse_unwrap(["http://user:hush@kbs"])
    assert "hush" not in str(caught.value)
    with pytest.raises(FormatError, match="'a b' is not a decryption parameter"):
        parse_unwrap(["a b"])
