# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from cocos.crypto import kek
from cocos.errors import FormatError, StateError
from cocos.host.key_folder import KeyFolder
from cocos.wire.kbs.protocol import ResourcePath

KEY = ResourcePath.parse("default/key/algo-key")


def test_keys_are_private_and_found_again(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    assert folder.read(KEY) is None
    assert folder.names() == []
    key = kek.generate()
    folder.store(KEY, key)
    folder.store(KEY, key)
    assert folder.read(KEY) == key
    assert folder.names() == [KEY]
    assert folder.path(KEY) == tmp_path / "keys/default/key/algo-key"
    assert folder.path(KEY).stat().st_mode & 0o777 == 0o600
    assert folder.folder.stat().st_mode & 0o77 == 0


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.store(KEY, key := kek.generate())
    with pytest.raises(StateError, match="another key kbs:///default/key/algo-key"):
        folder.store(KEY, kek.generate())
    assert folder.read(KEY) == key


def test_broken_key_names_its_length_and_its_file(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.path(KEY).parent.mkdir(parents=True)
    folder.path(KEY).write_bytes(b"c2hvcnQ=\n")
    with pytest.raises(FormatError, match=r"is 9 bytes long \(base64 text of 5 bytes\)") as caught:
        folder.read(KEY)
    assert str(folder.path(KEY)) in caught.value.message
    assert "c2hvcnQ" not in caught.value.message
