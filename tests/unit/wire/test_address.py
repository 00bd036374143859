# SPDX-License-Identifier: Apache-2.0
import pytest

from cocos.errors import FormatError
from cocos.wire.address import parse_address, shown


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
