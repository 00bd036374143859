# SPDX-License-Identifier: Apache-2.0
"""JSON at the edge: our error or a value, nothing else."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from cocos.errors import FormatError
from cocos.wire import json


def test_canonical_form_is_that_of_the_reference() -> None:
    text = json.canonical({"b": 1, "a": "test", "c": {"d": "e"}})
    # kbs.md §4, also a unit test upstream
    assert hashlib.sha384(text).hexdigest().startswith("e71ce8e70d814ba6639c3612ebee0ff1")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":1e999}x', b"nul"])
def test_malformed(text: bytes) -> None:
    with pytest.raises(FormatError, match="the thing is malformed"):
        json.decode(text, dict[str, object], "the thing")


@pytest.mark.parametrize("value", [float("nan"), 2**60, "\ud800", {"x": float("inf")}])
def test_no_canonical_form(value: object) -> None:
    with pytest.raises(FormatError):
        json.canonical(value)


@pytest.mark.parametrize("text", ["YQ", "Y Q==", "YQ==\n", "-_==", "YR==", "AAAA="])
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(FormatError, match="it is not standard base64"):
        json.b64decode(text, "it")


@pytest.mark.parametrize(("text", "data"), [("", b""), ("YQ==", b"a"), (b"+/+/", b"\xfb\xff\xbf")])
def test_base64(text: str | bytes, data: bytes) -> None:
    assert json.b64decode(text, "it") == data


# --- what strangers send -------------------------------------------------------------------


def strictly(text: bytes) -> Any:
    return json.decode_strict(text, Any, "the thing")


NESTED: list[Callable[[int], bytes]] = [
    lambda depth: b"[" * depth + b"]" * depth,
    lambda depth: b'{"":' * depth + b"0" + b"}" * depth,
    # Both kinds by turns, either of them innermost.
    lambda depth: b'[{"":' * (depth // 2) + b"[]" + b"}]" * (depth // 2),
    lambda depth: b'{"":[' * (depth // 2) + b"{}" + b"]}" * (depth // 2),
    # Others beside it, and brackets in texts that are none.
    lambda depth: b'["]}",{},[[]],' + b"[" * (depth - 1) + b"]" * depth,
]


@pytest.mark.parametrize("nested", NESTED)
def test_how_deep(nested: Callable[[int], bytes]) -> None:
    for depth in (3, 5, 63):  # odd: by turns there is one more in the middle
        strictly(nested(depth))
    for depth in (65, 67, 101, 201, 50_001):
        with pytest.raises(FormatError, match="the thing is malformed: nested more than 64 levels"):
            strictly(nested(depth))


def test_how_deep_to_a_level() -> None:
    for nested in NESTED[:2]:
        strictly(nested(64))
    strictly(b'[{"":' * 32 + b"0" + b"}]" * 32)
    with pytest.raises(FormatError, match="nested more than 64 levels"):
        strictly(b'[{"":' * 33 + b"0" + b"}]" * 33)


def test_how_many_values() -> None:
    assert strictly(b"[" + b"0," * 99_999 + b"0]") == [0] * 100_000
    for text in (b"[" + b"0," * 100_000 + b"0]", b'{"a":[' + b"0," * 100_000 + b"0]}"):
        with pytest.raises(FormatError, match="the thing is malformed: more than 100000 values"):
            strictly(text)
    # Not in how many pieces a text could be cut.
    assert strictly(b'["' + b"," * 200_000 + b'"]') == ["," * 200_000]
    assert strictly(b'["' + b"[" * 200 + b'\\"' + b"[{" * 200 + b'"]') == [
        "[" * 200 + '"' + "[{" * 200
    ]
    assert strictly(b"[" + b"[]," * 1000 + b"{}]") == [[]] * 1000 + [{}]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"\\u0061":1}',
        b'[{"x":{"a":{},"a":[]}}]',
        b'{"a":{"b":1,"b":2},"a":1}',
    ],
)
def test_a_name_stands_once(text: bytes) -> None:
    with pytest.raises(FormatError, match="the thing is malformed: a name stands twice"):
        strictly(text)
    json.decode(text, Any, "the thing")
    assert strictly(b'{"a":{"a":[{"a":1},{"a":1}]},"A":1}') == {"a": {"a": [{"a": 1}] * 2}, "A": 1}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'"', b'["' + b"[" * 100, b"[" * 100, b"[" * 65 + b'"\\', b"}" * 100, b"\xff"],
)
def test_what_breaks_off_is_no_json(text: bytes) -> None:
    with pytest.raises(FormatError, match="the thing is malformed"):
        strictly(text)


@pytest.mark.parametrize(
    ("value", "text"), [({"b": 1, "a": None}, b'{"b":1,"a":null}'), ([], b"[]")]
)
def test_encoded_as_it_is(value: object, text: bytes) -> None:
    assert json.encode(value) == text
