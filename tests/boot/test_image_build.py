# SPDX-License-Identifier: Apache-2.0
"""Builds of the image: the same inputs give the same bytes."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from cocos.image.build import build
from cocos.image.config import BuildSettings
from cocos.wire.pe import Image

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("image"), pytest.mark.timeout(1800)]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


async def test_two_builds_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    first, second = tmp_path / "first", tmp_path / "second"
    description = await build(BuildSettings(output=first), steps.append)
    # Another user's habits must not show.
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    umask = os.umask(0o077)
    try:
        await build(BuildSettings(output=second), steps.append)
    finally:
        os.umask(umask)
    assert digests(first) == digests(second)
    assert steps
    assert {"skopeo", "runc", "umoci", "systemd", "python3"} <= description["packages"].keys()
    line = Image.parse((first / "cocos.efi").read_bytes()).section(".cmdline")
    assert line is not None
    assert line == description["cmdline"].encode()
    assert f"roothash={description['roothash']}".encode() in line
    assert b"cocos.debug" not in line
    values = json.loads((first / "reference-values.json").read_bytes())
    assert set(values) > {"tpm_pcr04", "tpm_pcr11", "tpm_pcr12", "inputs"}
    assert not list((first / "..").glob(".new-*"))
