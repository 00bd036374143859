# SPDX-License-Identifier: Apache-2.0
import pytest

from cocos.errors import FormatError
from cocos.wire.address import Address, parse_address, parse_cvms, shown


@pytest.mark.parametrize(
    ("text", "scheme", "address"),
    [
        ("http://10.0.0.1:7001", "http", "10.0.0.1:7001"),
        ("http://cvms.example", "http", "cvms.example:7001"),
        ("https://cvms.example:443/", "https", "cvms.example:443"),
        ("localhost:1", "", "localhost:1"),
        ("localhost", "", "localhost:7001"),
        ("[::1]:7001", "", "[::1]:7001"),
        ("http://[fe80::1]", "http", "[fe80::1]:7001"),
    ],
)
def test_forms(text: str, scheme: str, address: str) -> None:
    parsed = parse_address(text, what="the CVMS", default_port=7001)
    assert (parsed.scheme, str(parsed)) == (scheme, address)


@pytest.mark.parametrize(
    "text",
    ["", "ftp://h:1", "http://", "h:0", "h:65536", "h:x", "http://u@h:1", "http://h:1/path",
     "http://h:1?q", "http://h:1#f", "h\n:1", "h h:1", "-h:1", "[::1", "[zz]:1", "::1", "h:1:2",
     "unix:/x", "http://h:1\r\nX: y", "[::ffff:10.0.2.2]:1", "[::FFFF:a00:202]:1",
     "127.1", "1", "0x7f.1:1", "h.0x7f:1", "2130706433:1", "01.2.3.4", "1.2.3.256",
     " http://h:1", "http://h:1 ", "[::1]h:1", "h[::1]:1", "[v1.a]:1", "[127.0.0.1]:1", "[h]:1"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="the CVMS") as caught:
        parse_address(text, what="the CVMS", default_port=7001)
    assert ("is missing" in caught.value.message) == (not text)
    assert caught.value.__cause__ is None  # or a log would have a traceback


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://h:x", "'http://h:x'"),
        ("a\nb", "'a\\nb'"),
        ("x" * 300, repr("x" * 200)),
        ("http://user:hush@h", "what stands there is not shown"),
        ("x" * 300 + "@", "what stands there is not shown"),
    ],
)
def test_what_a_message_shows(text: str, words: str) -> None:
    assert shown(text) == words


@pytest.mark.parametrize(
    ("text", "ca", "certificate"),
    [
        ("cvms", False, False),
        ("http://cvms", False, False),
        ("cvms", True, False),
        ("https://cvms", True, False),
        ("cvms", True, True),
        ("https://cvms", True, True),
    ],
)
def test_a_cvms_on_its_port(text: str, ca: bool, certificate: bool) -> None:
    scheme = text.partition("://")[0] if ":" in text else ""
    assert parse_cvms(text, ca=ca, certificate=certificate) == Address(scheme, "cvms", 7001)


@pytest.mark.parametrize(
    ("text", "ca", "certificate", "said"),
    [
        ("https://cvms", False, False, "needs the CA certificate"),
        ("https://cvms", False, True, "needs the CA certificate"),
        ("http://cvms", False, True, "needs the CA certificate"),
        ("cvms", False, True, "needs the CA certificate"),
        ("http://cvms", True, False, "says plaintext"),
        ("http://cvms", True, True, "says plaintext"),
    ],
)
def test_tls_to_a_cvms_is_never_half_meant(
    text: str, ca: bool, certificate: bool, said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        parse_cvms(text, ca=ca, certificate=certificate)
