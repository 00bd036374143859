# SPDX-License-Identifier: Apache-2.0
"""Files are whole or absent, and private."""

import fcntl
import stat
from pathlib import Path

import pytest

from cocos.errors import ConfigError
from cocos.host import files


def test_write_replaces_and_sets_the_mode(tmp_path: Path) -> None:
    target = tmp_path / "key"
    target.write_bytes(b"old")
    target.chmod(0o644)
    files.write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "key"
    target.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_read_names_the_file_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the admin's key, .*/none: No such file"):
        files.read_file(tmp_path / "none", "the admin's key")
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(ConfigError, match="larger than 4 bytes"):
        files.read_file(tmp_path / "big", "the key", limit=4)


def test_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = files.cache_folder("tools")
    assert folder == tmp_path / "cocos" / "tools"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.lock_file(path), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
