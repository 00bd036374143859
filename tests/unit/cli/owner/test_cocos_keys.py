# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from typer.testing import CliRunner

from cocos.cli import _common
from cocos.cli.owner.keys import keys
from cocos.crypto.sealed import open_sealed, seal
from cocos.errors import UsageError

# Not cocos-cli's own application: that one sets up logs for the whole process.
app = _common.make_app("keys")
app.command()(keys)


def make(folder: Path, *arguments: str) -> None:
    result = CliRunner().invoke(app, ["-o", str(folder), *arguments])
    if result.exception is not None:
        raise result.exception


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_result_sealed_to_the_public_key_opens_with_the_private_one(
    tmp_path: Path, kind: str
) -> None:
    make(tmp_path, "-k", kind)
    public = load_pem_public_key((tmp_path / "public.pem").read_bytes())
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert open_sealed(seal(b"result", [der]), (tmp_path / "private.pem").read_bytes()) == b"result"


def test_nobody_else_can_read_the_private_key(tmp_path: Path) -> None:
    make(tmp_path, "-k", "ecdsa")
    assert (tmp_path / "private.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public.pem").stat().st_mode & 0o777 == 0o644
    load_pem_private_key((tmp_path / "private.pem").read_bytes(), None)


def test_the_default_receives_results(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["-o", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {
        "private": str(tmp_path / "private.pem"),
        "public": str(tmp_path / "public.pem"),
        "type": "rsa",
        "receives_results": True,
    }


def test_ed25519_says_that_it_cannot_receive(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["-k", "ed25519", "-o", str(tmp_path)])
    assert "cannot receive results" in result.stderr
    assert "rsa" in result.stderr


@pytest.mark.parametrize("name", ["private.pem", "public.pem"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match=name):
        make(tmp_path, "-k", "ecdsa")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    make(tmp_path, "-k", "ecdsa", "--force")
    assert (tmp_path / name).read_text() != "precious"


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    make(tmp_path / "absent" / "folder", "-k", "ecdsa")
    made = sorted(path.name for path in (tmp_path / "absent" / "folder").iterdir())
    assert made == ["private.pem", "public.pem"]
