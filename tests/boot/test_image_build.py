# SPDX-License-Identifier: Apache-2.0
"""Builds of the image: the same inputs give the same bytes, and nothing is done twice."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from cocos.host import process
from cocos.host.tools.image_tools import Tools
from cocos.image.build import build
from cocos.image.config import BuildSettings, Step
from cocos.image.inputs import gather, locked_cache
from cocos.wire.image_folder import FIRMWARE, ROOT, UKI
from cocos.wire.pe import Image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vm,
    pytest.mark.xdist_group("image"),
    pytest.mark.timeout(1800),
]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "image.md"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


async def launch_digest(image: Path, cpus: int) -> str:
    """Ask the program of the library's authors."""
    program = Path(sys.executable).with_name("sev-snp-measure")
    words = ["--mode", "snp", "--vcpus", str(cpus), "--vcpu-type", "EPYC-v4"]
    words += ["--ovmf", str(image / FIRMWARE["snp"]), "--kernel", str(image / UKI)]
    return (await process.run([program, *words], timeout=60)).stdout.decode().strip()


async def cocos_cli(*words: str) -> str:
    program = Path(sys.executable).with_name("cocos-cli")
    return (await process.run([program, *words], timeout=120)).stdout.decode()


async def build_tools() -> Tools:
    async with locked_cache(lambda *_: None) as cache:
        return (await gather(cache, BuildSettings(output=cache), lambda *_: None)).tools


async def test_nobody_can_log_into_an_image_of_owners(image: Path) -> None:
    tools = await build_tools()
    done = await tools.run(["unsquashfs", "-l", "-d", "", ROOT], work=image)
    paths = done.stdout.decode().splitlines()
    assert "/usr/lib/systemd/system/cocos-agent.service" in paths
    found = [path for path in paths if re.search(r"cocos-debug|dropbear|getty|sshd|/login$", path)]
    assert found == []


async def test_services_are_as_exposed_as_the_docs_say(debug_image: Path, tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\| (\d+\.\d) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    tools = await build_tools()
    shutil.copyfile(debug_image / ROOT, tmp_path / ROOT)
    await tools.run(["unsquashfs", "-quiet", "-no-progress", "-d", "root", ROOT], work=tmp_path)
    analyze = "mkdir /run; systemd-analyze security --offline=yes --no-pager"
    services = " ".join(f"{name}.service" for name, _ in rows)
    done = await tools.run(
        ["sh", "-c", f"{analyze} {services}"], work=tmp_path, root=tmp_path / "root"
    )
    found = re.findall(r"level for (\S+)\.service: (\d+\.\d)", done.stdout.decode())
    assert {name for name, _ in found} == {"attestation-agent", "coco-keyprovider", "cocos-agent"}
    assert found == rows


async def test_two_builds_give_the_same_bytes(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Step] = []
    first, second = image, tmp_path / "second"
    # An image with a changed byte is made anew, and another user's habits do not show.
    shutil.copytree(first, second)
    with (second / ROOT).open("r+b") as root:
        root.seek(5_000_000)
        root.write(b"?")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    umask = os.umask(0o077)
    try:
        again = await build(BuildSettings(output=second), lambda step, _: steps.append(step))
    finally:
        os.umask(umask)
    assert not again.up_to_date
    assert steps[-1] is Step.PREDICT
    assert digests(first) == digests(second)

    steps.clear()
    third = await build(BuildSettings(output=second), lambda step, _: steps.append(step))
    assert third.up_to_date
    assert third.description == again.description
    assert set(steps) <= {Step.WAIT}
    told = json.loads(await cocos_cli("image", "build", "-o", str(second), "--json"))
    assert told == {"folder": str(second), "up_to_date": True, **again.description}

    description = again.description
    assert {"skopeo", "runc", "umoci", "systemd", "python3"} <= description["packages"].keys()
    line = Image.parse((first / "cocos.efi").read_bytes()).section(".cmdline")
    assert line is not None
    assert line == description["cmdline"].encode()
    assert f"roothash={description['roothash']}".encode() in line
    assert b"cocos.debug" not in line
    values = json.loads((first / "reference-values.json").read_bytes())
    assert set(values) > {"tpm_pcr04", "tpm_pcr11", "tpm_pcr12", "mr_td", "rtmr_1", "rtmr_2"}
    digests_of = values["snp_launch_measurement"]
    assert len(digests_of) == 16
    for cpus in (1, 2, 16):
        assert digests_of[cpus - 1] == await launch_digest(first, cpus)
    shown = await cocos_cli("image", "inspect", str(first))
    for part in values["inputs"].values():
        for name in part.get("values", ()):
            assert all(value in shown for value in values[name])
