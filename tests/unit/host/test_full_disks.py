# SPDX-License-Identifier: Apache-2.0
"""A disk that is full, read-only or broken is one condition with one code, whoever meets it."""

import errno
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from cocos.agent.fetch import _check_space
from cocos.cli import _common as common
from cocos.errors import ConfigError, ProcessError, StorageError
from cocos.host import archive, process
from cocos.host.disk import disk_error, translated
from cocos.host.files import read_file, storing, write_atomic
from cocos.host.images.layout import VerifiedImage
from cocos.transport import rpc

NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number), "/x")

    return fail


@pytest.mark.parametrize("number", NUMBERS)
def test_whatever_was_being_done(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"x")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("a", "b")
    monkeypatch.setattr("os.fsync", failing(number))
    with pytest.raises(StorageError, match="cannot write"), storing(tmp_path):
        write_atomic(tmp_path / "out", b"x")
    monkeypatch.setattr("os.fdopen", failing(number))
    with pytest.raises(StorageError):
        archive.unzip(packed, tmp_path / "unzipped")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "read_bytes", failing(number))
    with pytest.raises(StorageError, match="cannot read the key"):
        read_file(tmp_path / "in", "the key")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG])
def test_what_is_no_disks_fault(number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert isinstance(disk_error(error, "cannot write /x"), ConfigError)
    assert translated(error) is None


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("spelled", [str, str.lower])
async def test_a_program_says_it(number: int, spelled: Callable[[str], str]) -> None:
    words = spelled(f"write /x: {os.strerror(number)}")
    with pytest.raises(StorageError, match="write /x"):
        await process.run(["sh", "-c", 'echo "$0" >&2; exit 3', words])
    with pytest.raises(ProcessError):
        await process.run(["sh", "-c", 'echo "$0"; exit 3', words])  # that is its output
    with pytest.raises(ProcessError):
        await process.run(["sh", "-c", "echo Permission denied >&2; exit 3"])


def test_an_image_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    class Layer:
        plain_bytes = 11

    class Image:
        layers = (Layer(),)

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage())
    image: VerifiedImage = Image()  # type: ignore[assignment]
    with pytest.raises(StorageError, match="11 bytes"):
        _check_space(image, tmp_path)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_nobody_has_translated(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    def fails(*, as_json: common.JsonFlag = False) -> None:
        failing(number)()

    monkeypatch.setattr("sys.argv", ["x", "--json"])
    with pytest.raises(SystemExit) as ended:
        common.run_app(app, "x")
    assert ended.value.code == 74
    assert json.loads(capsys.readouterr().err)["error"] == "storage"
    status, text = rpc.failure("m", OSError(number, os.strerror(number), "/x"))
    assert (status.name, text) == ("UNAVAILABLE", f"cannot use /x: {os.strerror(number)}")
