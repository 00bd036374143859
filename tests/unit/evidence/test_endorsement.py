# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of endorsement keys, and files that list them."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.evidence.endorsement import fingerprint, parse_fingerprint, parse_list

ONE, OTHER = "0123456789abcdef" * 4, "fe" * 32


def colons(text: str) -> str:
    return ":".join(text[begin : begin + 2] for begin in range(0, 64, 2))


def test_it_is_what_openssl_computes(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "ek.pem").write_bytes(pem)
    command = "openssl pkey -pubin -in ek.pem -outform DER | sha256sum"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == fingerprint(key)


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.booleans(), st.booleans())
def test_every_form_is_the_same_key(digest: bytes, prefix: bool, upper: bool, split: bool) -> None:
    text = colons(digest.hex()) if split else digest.hex()
    text = f"sha256:{text}" if prefix else text
    assert parse_fingerprint(text.upper() if upper else text) == digest.hex()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ONE[:-1],
        ONE + "0",
        ONE[:-1] + "g",
        ONE[:-1] + "٣",  # a digit, but of another script
        f"0x{ONE}",
        f"sha1:{ONE}",
        f"sha256:sha256:{ONE}",
        f"{ONE}\n",
        f" {ONE}",
        colons(ONE)[:-1],
        colons(ONE).replace(":", "", 1),
        colons(ONE).replace(":", "-"),
        f"SHA256 Fingerprint={colons(ONE)}",  # of a certificate, as OpenSSL prints it
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="no fingerprint"):
        parse_fingerprint(text)


@given(st.text())
def test_whatever_is_given_it_has_one_form_or_none(text: str) -> None:
    try:
        found = parse_fingerprint(text)
    except FormatError:
        return
    assert parse_fingerprint(found) == found


def test_a_list_has_comments_blanks_and_twins() -> None:
    text = f"# ours\n\n{ONE}  # rack 1\r\n\t{colons(OTHER).upper()}\nSHA256:{ONE.upper()}"
    assert parse_list(text.encode(), "file") == (ONE, OTHER)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "file names no endorsement key"),
        (b"\n \n# none\n", "file names no endorsement key"),
        (b"\xff\xfe", "not UTF-8"),
        (f"{ONE}\n{ONE[1:]}\n".encode(), "file, line 2"),
        (f"{ONE} {OTHER}\n".encode(), "file, line 1"),
        (f"{ONE},{OTHER}\n".encode(), "file, line 1"),
        (f"\N{BYTE ORDER MARK}{ONE}\n".encode(), "file, line 1"),
        (b'["' + ONE.encode() + b'"]', "file, line 1"),
        (b"-----BEGIN CERTIFICATE-----\n", "file, line 1"),
        (b"\0" * 100, "file, line 1"),
    ],
)
def test_a_list_that_is_none(data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        parse_list(data, "file")
