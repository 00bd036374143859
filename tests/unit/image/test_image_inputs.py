# SPDX-License-Identifier: Apache-2.0
"""What decides an image, and when a build has nothing to do."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocos.host.tools.image_tools import Tools
from cocos.image import describe, inputs, rootfs
from cocos.image.config import BuildSettings, Step
from cocos.image.inputs import Inputs
from cocos.wire.image_folder import DESCRIPTION, FIRMWARE, UKI

SETTINGS = BuildSettings(output=Path("image"))
INPUTS = Inputs(Path("g.tar"), {"runc": "1.1"}, Path("wheels"), Tools(Path("t")), {"zstd": "1.5"})
HASH = "ab" * 32
DECIDES = "a digest"
FILES = describe.files(SETTINGS)


def test_inputs_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    archives = [inputs._guest_archive(tmp_path, debug=debug) for debug in (False, True)]
    folders = [inputs._tools(tmp_path), inputs._firmware(tmp_path), inputs._wheels(tmp_path)]
    kept = {*archives, *map(inputs._list_of, archives), *folders, tmp_path / "lock"}
    assert len(kept) == 8
    for path in (*kept, tmp_path / "guest-old.tar"):
        path.touch()
    (tmp_path / "wheels-old" / "deep").mkdir(parents=True)
    inputs._forget(tmp_path)
    assert set(tmp_path.iterdir()) == kept


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    told: list[tuple[Step, str]] = []
    (tmp_path / ".fetching" / "of an earlier one").mkdir(parents=True)
    fetch = inputs._Fetch(tmp_path, lambda *words: told.append(words), refresh=False)
    with pytest.raises(RuntimeError):
        asyncio.run(interrupted(fetch))
    assert told == [(Step.TOOLS, "")]
    assert not list(tmp_path.iterdir())


async def interrupted(fetch: inputs._Fetch) -> None:
    async with fetch._fetching(Step.TOOLS) as folder:
        assert not list(folder.iterdir())
        (folder / "half").write_bytes(bytes(100))
        assert inputs._size(folder) == 100
        raise RuntimeError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-in for our own files."""
    folder = tmp_path / "cocos"
    for name in ("errors.py", "agent/service.py", "image/build.py", "image/guest/init", "kbs/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.setattr(rootfs, "PACKAGE", folder)
    monkeypatch.setattr(rootfs, "GUEST", folder / "image" / "guest")
    return folder


def test_everything_that_decides_the_image_is_in_its_digest(package: Path) -> None:
    def now(settings: BuildSettings = SETTINGS, **changes: Any) -> str:
        return inputs.digest(settings, dataclasses.replace(INPUTS, **changes))

    start = now()
    for name in ("errors.py", "agent/service.py", "image/build.py", "image/guest/init"):
        before = (package / name).read_text()
        (package / name).write_text("changed")
        assert now() != start, name
        (package / name).write_text(before)
    assert now() == start
    (package / "agent" / "more.py").touch()
    assert now() != start
    (package / "agent" / "more.py").unlink()
    assert now(SETTINGS.model_copy(update={"debug": True})) != start
    assert now(SETTINGS.model_copy(update={"epoch": 1})) != start
    assert now(SETTINGS.model_copy(update={"cpus": 2})) != start
    assert now(SETTINGS.model_copy(update={"confidential": False})) != start
    assert now(firmware_versions={"ovmf-amdsev": "1"}) != start
    assert now(packages={"runc": "1.2"}) != start
    assert now(tool_versions={"zstd": "1.6"}) != start


def test_what_does_not_decide_the_image_is_not(package: Path) -> None:
    start = inputs.digest(SETTINGS, INPUTS)
    (package / "kbs" / "x.py").write_text("changed")
    (package / "agent" / "__pycache__").mkdir()
    (package / "agent" / "__pycache__" / "x.pyc").touch()
    other = SETTINGS.model_copy(update={"output": Path("elsewhere"), "refresh": True})
    assert inputs.digest(other, INPUTS) == start


@pytest.fixture
def built(tmp_path: Path, efi: Callable[..., bytes]) -> Path:
    """Folder as a build leaves it."""
    folder = tmp_path / "built"
    folder.mkdir()
    line = f"roothash={HASH} quiet".encode()
    for name in FILES:
        (folder / name).write_bytes(name.encode())
    (folder / UKI).write_bytes(efi({".cmdline": line, ".uname": b"6.12"}))
    description = describe.describe(folder, SETTINGS, INPUTS, DECIDES)
    (folder / DESCRIPTION).write_bytes(describe.encode(description))
    return folder


def test_an_image_as_it_was_built_is_current(built: Path) -> None:
    description = describe.current(built, SETTINGS, INPUTS, DECIDES)
    assert description is not None
    assert (description["kernel"], description["roothash"]) == ("6.12", HASH)
    assert describe.current(built, SETTINGS, INPUTS, "another digest") is None
    assert describe.current(built / "absent", SETTINGS, INPUTS, DECIDES) is None


@pytest.mark.parametrize("name", [*FILES, DESCRIPTION])
def test_a_file_that_is_changed_or_missing_is_noticed(built: Path, name: str) -> None:
    content = bytearray((built / name).read_bytes())
    content[len(content) // 2] ^= 1
    (built / name).write_bytes(content)
    assert describe.current(built, SETTINGS, INPUTS, DECIDES) is None
    (built / name).unlink()
    assert describe.current(built, SETTINGS, INPUTS, DECIDES) is None


def test_an_image_without_firmware_has_no_use_for_any(built: Path) -> None:
    settings = SETTINGS.model_copy(update={"confidential": False})
    assert set(FILES) - set(describe.files(settings)) == set(FIRMWARE.values())
    assert describe.current(built, settings, INPUTS, DECIDES) is None
