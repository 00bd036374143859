# SPDX-License-Identifier: Apache-2.0
"""The firmware of VMs with encrypted memory: that of the image, whose digest it lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import ConfigError
from cocos.host.confidential import Verdict
from cocos.manager.backends._qemu_image import Image
from cocos.manager.backends.qemu import QemuBackend
from cocos.manager.config import ManagerConfig
from cocos.wire.image_folder import DESCRIPTION, FIRMWARE, REFERENCE_VALUES, Memory


@pytest.fixture
def image(tmp_path: Path) -> Image:
    files: dict[str, Any] = {}
    for name in FIRMWARE.values():
        content = name.encode()
        (tmp_path / name).write_bytes(content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / DESCRIPTION).write_text(json.dumps({"files": files}))
    (tmp_path / REFERENCE_VALUES).write_text(json.dumps({"inputs": {"snp": {"cpus": 4}}}))
    return Image(tmp_path)


@pytest.mark.parametrize("memory", ["snp", "tdx"])
def test_each_kind_has_its_own(image: Image, memory: Memory) -> None:
    assert image.firmware(memory, 4) == image.folder / FIRMWARE[memory]


@pytest.mark.parametrize("memory", ["snp", "tdx"])
def test_other_bytes_than_those_listed_are_refused(image: Image, memory: Memory) -> None:
    (image.folder / FIRMWARE[memory]).write_bytes(b"other")
    with pytest.raises(ConfigError, match="not as it was built"):
        image.firmware(memory, 1)


def test_an_image_built_without_any(image: Image) -> None:
    (image.folder / FIRMWARE["snp"]).unlink()
    with pytest.raises(ConfigError, match="no firmware for snp"):
        image.firmware("snp", 1)
    for text in ("{}", "[]", "no JSON"):
        (image.folder / DESCRIPTION).write_text(text)
        with pytest.raises(ConfigError, match="no firmware for tdx"):
            image.firmware("tdx", 1)


def test_more_processors_than_the_reference_values_know(image: Image) -> None:
    with pytest.raises(ConfigError, match="up to 4 processors") as caught:
        image.firmware("snp", 5)
    assert caught.value.hint == "cocos-cli image build --cpus 5"
    image.firmware("tdx", 5)  # they do not show in its measurements


def test_the_images_own_is_used_unless_another_is_configured(image: Image) -> None:
    def chosen(kind: Memory | None, **settings: Any) -> Path:
        folder = image.folder
        config = ManagerConfig(state_folder=folder, ovmf_code=Path("/ovmf"), cpus=4, **settings)
        backend = QemuBackend(config)
        backend._verdict = Verdict(kind, "")
        return backend._choose_firmware(image)

    assert chosen(None) == Path("/ovmf")
    assert chosen("snp") == image.folder / "firmware-snp.fd"
    assert chosen("tdx") == image.folder / "firmware-tdx.fd"
    assert chosen("snp", ovmf_confidential=Path("/own.fd")) == Path("/own.fd")
