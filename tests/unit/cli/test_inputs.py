# SPDX-License-Identifier: Apache-2.0
"""What commands say of a file that is not there, or is something else."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from _layouts import gzipped, tar, write
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from typer.testing import CliRunner

from cocos.attestation_service.config import ServerSettings
from cocos.cli import _common
from cocos.cli.kbs import token_keys as kbs_token_keys
from cocos.cli.kbs_client import audit as kbs_audit
from cocos.cli.kbs_client.admin import Connection
from cocos.cli.owner import computation as cocos_computation
from cocos.cli.owner import image as cocos_image
from cocos.cli.owner import result as cocos_result
from cocos.errors import CocosError, ConfigError, FormatError, NotFoundError

# Not the programs' own applications: those set up logs for the whole process.
app = _common.make_app("commands")
app.command("result")(cocos_result.result)
app.command("checksum")(cocos_result.checksum)
app.add_typer(cocos_computation.app, name="computation")
app.add_typer(cocos_image.app, name="image")
audit = _common.make_app("audit")
audit.add_typer(kbs_audit.app, name="audit")


def failure(*words: str | Path, program: object = app) -> CocosError:
    connection = Connection("http://127.0.0.1:1", None)
    result = CliRunner().invoke(program, [*map(str, words)], obj=connection)  # type: ignore[arg-type]
    assert isinstance(result.exception, CocosError), result.output
    return result.exception


@pytest.mark.parametrize(
    "command",
    ["result {} --key k", "checksum {}", "checksum --manifest {}", "computation digest {}"],
)
def test_an_input_that_is_not_there(tmp_path: Path, command: str) -> None:
    error = failure(*command.format(tmp_path / "none").split())
    assert isinstance(error, NotFoundError)
    assert str(tmp_path / "none") in error.message


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    error = failure("image", "inspect", tmp_path)
    assert isinstance(error, NotFoundError)
    assert error.hint == "cocos-cli image build makes one"


def test_the_file_of_a_key_or_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    junk, key, log = tmp_path / "junk", tmp_path / "key", tmp_path / "log"
    pem = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    junk.write_text("junk")
    key.write_bytes(pem)
    head = {"log": "l", "checkpoint": "", "public_key": pem.decode()}
    log.write_text(json.dumps(head))
    verify = ("audit", "verify", "--file", log)
    error = failure(*verify, "--checkpoint-key", junk, program=audit)
    assert isinstance(error, ConfigError)
    assert error.message.startswith(f"--checkpoint-key {junk}:")
    error = failure(*verify, "--checkpoint-key", key, "--checkpoint", junk, program=audit)
    assert isinstance(error, FormatError)
    assert error.message.startswith(f"--checkpoint {junk}:")


def test_the_first_key_has_signed_since_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    moment = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
    first = {
        "kid": "a" * 43,
        "signs": True,
        "expires": None,
        "active": dt.datetime.fromtimestamp(0, dt.UTC),
    }
    kbs_token_keys._show([first, {**first, "kid": "b" * 43, "active": moment, "expires": moment}])
    shown = capsys.readouterr().out
    assert "since it was made" in shown
    assert "1970" not in shown
    assert "a" * 43 in shown
    assert shown.count("2026-11-25") == 2


def test_the_attestation_service_wants_an_address() -> None:
    ServerSettings(socket="unix:/run/as.sock").check()
    with pytest.raises(ValueError, match=r"'foo' is not an address: write it as 127\.0\.0\.1:8080"):
        ServerSettings(socket="foo")


def test_unbound_evidence_is_taken_where_evidence_is() -> None:
    """The flag without a place where it counts would be believed to do something."""
    taken: Any = {"socket": "unix:/run/as.sock", "insecure_allow_unbound_evidence": True}
    ServerSettings(**taken, http_socket="127.0.0.1:8081").check()
    assert not ServerSettings(socket="unix:/run/as.sock").insecure_allow_unbound_evidence
    tls = {name: Path(f"/{name}.pem") for name in ("certificate", "private_key", "client_ca")}
    refused: list[Any] = [{}, {**tls, "http_socket": "127.0.0.1:8081"}, {"insecure_api": True}]
    for more in refused:
        with pytest.raises(ConfigError, match="unbound evidence") as caught:
            ServerSettings(**taken, **more).check()
        assert "--http-socket" in str(caught.value.hint)


def test_a_hash_goes_bare_to_who_takes_it_up(tmp_path: Path) -> None:
    """-algo-hash "$(cocos-cli checksum …)" wants it so; a person sees what it is the hash of."""
    file, image = tmp_path / "file", tmp_path / "image"
    file.write_bytes(b"x")
    digest = write(image, [gzipped(tar("a", b"x"))])
    for path in (file, f"oci:{image}"):
        shown = CliRunner().invoke(app, ["checksum", str(path)])
        assert re.fullmatch(r"[0-9a-f]{64}\n", shown.stdout)
    assert shown.stdout.strip() == digest.removeprefix("sha256:")


@pytest.mark.parametrize("path", ["nope", "folder/nope", "./nope", "nope.json"])
def test_a_word_that_is_neither_file_nor_image(path: str) -> None:
    error = failure("checksum", path)
    assert isinstance(error, NotFoundError)
    assert error.message == f"there is no {path}"
    assert "docker://" in str(error.hint)


def test_images_that_are_not_read_are_no_missing_files() -> None:
    assert isinstance(failure("checksum", "docker-archive:a.tar"), FormatError)
