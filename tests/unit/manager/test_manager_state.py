# SPDX-License-Identifier: Apache-2.0
import datetime as dt
from pathlib import Path

import msgspec
import pytest

from cocos.errors import ConfigError
from cocos.manager.records import VmRecord, VmState
from cocos.manager.state import StateFolder

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
RECORD = VmRecord("one", "local", VmState.RUNNING, NOW, "h:7001")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.open()
    return made


def test_only_one_manager_has_the_folder(tmp_path: Path, state: StateFolder) -> None:
    second = StateFolder(tmp_path / "state")
    with pytest.raises(ConfigError, match="another manager"):
        second.open()
    state.close()
    second.open()


def test_folders_are_private(tmp_path: Path, state: StateFolder) -> None:
    folder = state.make(RECORD)
    for path in (folder, folder.parent, folder.parent.parent, tmp_path / "state"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (folder.parent / "vm.json").stat().st_mode & 0o777 == 0o600


def test_records_come_back_oldest_first(state: StateFolder) -> None:
    state.make(RECORD)
    older = msgspec.structs.replace(RECORD, id="zwei", created=NOW - dt.timedelta(hours=1))
    state.make(older)
    assert state.records() == [older, RECORD]


def test_a_folder_without_a_sound_record_goes(tmp_path: Path, state: StateFolder) -> None:
    folder = state.make(RECORD)
    (folder.parent / "vm.json").write_bytes(b"{")
    (tmp_path / "state" / "vms" / "stray").mkdir()
    assert state.records() == []
    assert list((tmp_path / "state" / "vms").iterdir()) == []


def test_clean_keeps_record_and_console(state: StateFolder) -> None:
    folder = state.make(RECORD)
    (folder / "secret").write_bytes(b"x")
    state.console("one").write_bytes(b"log")
    state.clean("one")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["console.log", "vm.json"]
    state.forget("one")
    assert not folder.parent.exists()
