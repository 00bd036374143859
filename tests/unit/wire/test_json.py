# SPDX-License-Identifier: Apache-2.0
"""JSON at the edge: our error or a value, nothing else."""

import hashlib

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
