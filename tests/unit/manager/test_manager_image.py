# SPDX-License-Identifier: Apache-2.0
"""The firmware of VMs with encrypted memory: that of the image, whose digest it lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cocos.errors import ConfigError
from cocos.host.machines import confidential, qemu
from cocos.host.machines.accelerator import Accelerator
from cocos.host.machines.confidential import HostFacts, Verdict
from cocos.manager.backends._qemu_image import Image
from cocos.manager.backends.qemu import QemuBackend
from cocos.manager.config import ManagerConfig
from cocos.manager.guest import GuestConfig
from cocos.wire import init_data
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
    assert caught.value.hint == "cocos-cli image build --max-cpus 5"
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


@pytest.mark.parametrize(("settings", "kind"), [({}, None), ({"confidential": "auto"}, "snp")])
async def test_memory_that_the_guest_cannot_attest_is_not_encrypted_by_default(
    image: Image, settings: Any, kind: Memory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def facts() -> HostFacts:
        return HostFacts(frozenset({"sev_snp"}), frozenset({"snp"}), (10, 1))

    monkeypatch.setattr(confidential, "read_facts", facts)
    backend = QemuBackend(ManagerConfig(state_folder=image.folder, **settings))
    backend._accelerator = Accelerator("kvm", "")
    with capture_logs() as logs:
        backend._verdict = await backend._judge()
    assert backend._verdict.kind == kind
    assert [entry["log_level"] for entry in logs] == ["warning"] * (kind is not None)
    # An image that was built without firmware for it is as good then.
    (image.folder / FIRMWARE["snp"]).unlink()
    if kind is None:
        assert backend._choose_firmware(image) == qemu.OVMF_CODE
    else:
        with pytest.raises(ConfigError, match="no firmware for snp"):
            backend._choose_firmware(image)


def test_the_hardware_is_told_the_digest_of_the_init_data(image: Image) -> None:
    text = init_data.build({"agent.env": "A=1"})
    digest = hashlib.sha256(text).digest()
    backend = QemuBackend(ManagerConfig(state_folder=image.folder))
    told: dict[Memory, qemu.Snp | qemu.Tdx] = {
        "snp": qemu.Snp(51, 1, digest),
        "tdx": qemu.Tdx(digest + bytes(16)),
    }
    for kind, expected in told.items():
        backend._verdict = Verdict(kind, "")
        sockets = qemu.Sockets(monitor=3, console=4, tpm=None)
        machine = backend._machine("vm", image.folder, image, GuestConfig(text, ()), sockets)
        assert machine.core.confidential == expected
