# SPDX-License-Identifier: Apache-2.0
"""How much a zip may hold: each limit on its own, and what is just within it."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cocos.errors import TooLargeError
from cocos.host import trees
from cocos.host.archive import unzip


def zipped(names: Sequence[str]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer


@pytest.mark.parametrize("form", ["{}", "folder/{}"])
def test_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Files in one folder: no other limit is near."""
    monkeypatch.setattr(trees, "MAX_ENTRIES", 9)
    names = [form.format(number) for number in range(10)]
    assert len(unzip(zipped(names[:9]), tmp_path / "nine")) == 9
    with pytest.raises(TooLargeError, match="the zip has more than 9 entries"):
        unzip(zipped(names), tmp_path / "ten")
    assert not (tmp_path / "ten").exists()


def test_folders_by_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_ENTRIES", 4)
    assert unzip(zipped(["a/b/c/d/x"]), tmp_path / "four") == ["a/b/c/d/x"]
    with pytest.raises(TooLargeError, match="the zip has more than 4 folders"):
        unzip(zipped(["a/b/c/x", "d/e/x"]), tmp_path / "five")
    assert not (tmp_path / "five").exists()


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_NAMES", 10)
    assert len(unzip(zipped(["aaaaa", "bbbbb"]), tmp_path / "ten")) == 2
    with pytest.raises(TooLargeError, match="names of more than 10 bytes in total"):
        unzip(zipped(["aaaaa", "bbbbbb"]), tmp_path / "eleven")
    assert not (tmp_path / "eleven").exists()
