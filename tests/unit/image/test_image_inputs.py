# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from cocos.image import inputs


def test_inputs_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    used = {inputs._guest_archive(tmp_path, debug=debug) for debug in (False, True)}
    assert len(used) == 2
    for path in (*used, tmp_path / "lock", tmp_path / "guest-old.tar"):
        path.touch()
    (tmp_path / "wheels-old" / "deep").mkdir(parents=True)
    inputs._forget(tmp_path, used)
    assert set(tmp_path.iterdir()) == {*used, tmp_path / "lock"}
