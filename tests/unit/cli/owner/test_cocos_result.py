# SPDX-License-Identifier: Apache-2.0
"""Results that somebody made up: they open, and the command does not pretend otherwise."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner, Result

from cocos.cli import _common
from cocos.cli.owner.result import result
from cocos.crypto.sealed import seal

# Not cocos-cli's own application: that one sets up logs for the whole process.
app = _common.make_app("result")
app.command()(result)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """Make a result as whoever has seen the consumer's public key can."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "private.pem").write_bytes(pem)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("stdout.log", "the treatment works\n")
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "1.zip.jwe"
    path.write_bytes(seal(buffer.getvalue(), [public]))
    return path


def run(file: Path, *more: str) -> Result:
    folder = file.parent
    words = [str(file), "--key", str(folder / "private.pem"), "-o", str(folder / "out"), *more]
    return CliRunner().invoke(app, words)


def test_a_person_is_told_that_nobody_vouches_for_it(forged: Path) -> None:
    opened = run(forged)
    assert opened.stdout == "the treatment works\n"
    assert "nobody vouches for who made this result" in " ".join(opened.stderr.split())


def test_a_program_is_told_so_too(forged: Path) -> None:
    told = json.loads(run(forged, "--json").stdout)
    assert told["stdout"] == "the treatment works\n"
    assert told["sender_authenticated"] is False
    assert "nobody vouches" in told["note"]
