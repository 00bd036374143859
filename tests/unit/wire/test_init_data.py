# SPDX-License-Identifier: Apache-2.0
import base64
import gzip
import hashlib
from typing import Literal

import pytest

from cocos.errors import FormatError
from cocos.wire import init_data
from cocos.wire.init_data import InitDocument

TEXT = b"""version = "0.1.0"
algorithm = "sha384"
[data]
"aa.toml" = '''
[token_configs.kbs]
url = "http://127.0.0.1:8080"
'''
"""


def test_the_digest_is_over_the_exact_bytes() -> None:
    document = InitDocument.parse(TEXT)
    assert document.version == "0.1.0"
    assert document.algorithm == "sha384"
    assert document.data.keys() == {"aa.toml"}
    assert document.digest == hashlib.sha384(TEXT).digest()
    assert InitDocument.parse(TEXT + b"\n").digest != document.digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize("dash", [True, False])
def test_forms_and_hashes(algorithm: str, form: Literal["toml", "json"], dash: bool) -> None:
    name = algorithm.replace("sha", "sha-") if dash else algorithm
    text = {
        "toml": f'version = "0.1.0"\nalgorithm = "{name}"\n[data]\nnote = "x"\n',
        "json": f'{{"version":"0.1.0", "algorithm":"{name}", "data":{{"note":"x"}}}}\n',
    }[form].encode()
    document = InitDocument.parse(text, form)
    assert document.algorithm == algorithm
    assert document.data == {"note": "x"}
    assert document.digest == hashlib.new(algorithm, text).digest()
    with pytest.raises(FormatError):
        InitDocument.parse(text, "json" if form == "toml" else "toml")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version":"1","algorithm":"sha256","data":{}',
        b'{"version":"1","algorithm":"sha256","data":{"a":1}}',
        b'{"version":"1","algorithm":"sha256","data":{"a":"1","a":"2"}}',
        b'{"version":"1","algorithm":["sha256"],"data":{}}',
        b'{"version":1,"algorithm":"sha256","data":{}}',
        b'{"algorithm":"sha256","data":{}}',
    ],
)
def test_what_is_no_init_data_in_json(text: bytes) -> None:
    with pytest.raises(FormatError):
        InitDocument.parse(text, "json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"no toml",
        b'algorithm = "sha256"\n[data]\n',
        b'version = 1\nalgorithm = "sha256"\n[data]\n',
        b'version = "0.1.0"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = "SHA256"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = "md5"\n[data]\n',
        b'version = "0.1.0"\nalgorithm = ["sha256"]\n[data]\n',
        b'version = "0.1.0"\nalgorithm = "sha256"\n',
        b'version = "0.1.0"\nalgorithm = "sha256"\ndata = "text"\n',
        b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\nnumber = 1\n',
        b'version = "0.1.0"\nalgorithm = "sha256"\n[data.nested]\nname = "x"\n',
        b"a = " + b"[" * 100_000,
    ],
)
def test_what_is_no_init_data(text: bytes) -> None:
    with pytest.raises(FormatError):
        InitDocument.parse(text)


def test_what_is_built_reads_as_it_was() -> None:
    data = {
        "agent.env": 'A="b"\nC="d"\n',
        "key.pem": "---\nx\n---\n",
        "odd 'n": "\r\n\x7f\x00'''\\",
        "three": "a\n'''b\n",
        "last": "a\nb'",
    }
    text = init_data.build(data)
    document = InitDocument.parse(text)
    assert document.data == data
    assert document.algorithm == "sha256"
    assert document.digest == hashlib.sha256(text).digest()
    assert b'C="d"\n' in text  # a person can read it


def test_what_is_built_is_measured_and_keeps_its_form() -> None:
    built = init_data.build({"one": "line", "two": "a\nb\n"})
    head = b'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n'
    assert built == head + b"\"one\" = \"line\"\n\"two\" = '''\na\nb\n'''\n"
    assert "line" not in repr(InitDocument.parse(built)), "it may hold secrets"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_disk_carries_the_exact_text(size: int) -> None:
    disk = init_data.to_disk(b"x" * size)
    assert len(disk) % 512 == 0
    assert init_data.from_disk(disk) == b"x" * size


def test_nothing_hides_behind_the_text_on_a_disk() -> None:
    with pytest.raises(FormatError, match="more than init data"):
        init_data.from_disk(b"version\0\0x\0")


@pytest.mark.parametrize("algorithm", ["SHA384", "md5", "sha-1", ""])
def test_a_hash_that_is_none_is_named_with_those_that_are(algorithm: str) -> None:
    text = f'version = "0.1.0"\nalgorithm = "{algorithm}"\n[data]\n'
    with pytest.raises(FormatError, match=f"names the hash '{algorithm}'") as caught:
        InitDocument.parse(text.encode())
    assert "sha384" in str(caught.value.hint)
    assert "sha-384" in str(caught.value.hint)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_init_data_as_pods_carry_it_are_said_to_be_packed(form: Literal["toml", "json"]) -> None:
    packed = gzip.compress(TEXT)
    for text, words in [(packed, "gunzip"), (base64.b64encode(packed), "base64 -d | gunzip")]:
        with pytest.raises(FormatError, match="the init data is gzip") as caught:
            InitDocument.parse(text, form)
        assert str(caught.value.hint).startswith(words)
