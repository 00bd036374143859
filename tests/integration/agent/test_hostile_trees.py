# SPDX-License-Identifier: Apache-2.0
"""What algorithms and data leave on the agent's disk to trip it: nothing of it stays."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from _agent import Bed, bed
from _images import algorithm, write_layout
from _trees import dig

from cocos.agent.states import State
from cocos.host import process, trees
from cocos.host.images.skopeo import Skopeo
from cocos.wire.json import encode

pytestmark = pytest.mark.integration

NEST = "i=0; while [ $i -lt {depth} ]; do busybox mkdir {name}; cd {name}; i=$((i+1)); done; "


@pytest.fixture
async def place(tool: Skopeo, tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(tmp_path, tool) as made:
        yield made


def manifest(folder: Path, *datasets: Path) -> bytes:
    sets = [{"uri": f"oci:{each}"} for each in datasets]
    document = {"computation_id": "c-1", "algorithm": {"uri": f"oci:{folder}"}, "datasets": sets}
    return json.dumps(document).encode()


async def ran(place: Bed, script: str, *datasets: Path) -> Any:
    algorithm(place.folder / "algo", script, env=("PATH=/bin",))
    return await place.run(manifest(place.folder / "algo", *datasets))  # nothing is left behind


@pytest.mark.parametrize(("name", "depth"), [("d", 1300), ("n" * 250, 20)])
async def test_results_deeper_than_any_path(place: Bed, name: str, depth: int) -> None:
    script = "cd /cocos/results; " + NEST.format(depth=depth, name=name) + "echo secret > data.csv"
    memory = await ran(place, script)
    assert memory.failure["step"] == "collect"
    assert memory.failure["code"] == "too-large"
    assert not trees.left_in(place.work)


async def test_results_named_like_our_logs(place: Bed) -> None:
    names = ("stdout.log", "stdout.log.result", "stderr.log")
    script = "; ".join(f"echo {name} > /cocos/results/{name}" for name in names)
    memory = await ran(place, script + "; echo ours")
    with zipfile.ZipFile(io.BytesIO(memory.results[0])) as files:
        found = {name: files.read(name).decode().strip() for name in files.namelist()}
        assert len(files.namelist()) == len(found)
    assert found == {
        "stdout.log": "ours",
        "stderr.log": "",
        "stdout.log.result": "stdout.log.result",
        "stdout.log.result.result": "stdout.log",
        "stderr.log.result": "stderr.log",
    }


def dataset(folder: Path, *members: tuple[str, bytes]) -> Path:
    """Write the image of a dataset with members of any kind and name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            layer.addfile(info)
    write_layout(folder, [buffer.getvalue()])
    return folder


async def test_a_dataset_of_names_that_are_no_text(place: Bed) -> None:
    data = dataset(place.folder / "data", ("fine", tarfile.REGTYPE), ("\udcff", tarfile.FIFOTYPE))
    memory = await ran(place, "true", data)
    assert memory.failure["step"] == "unpack"
    assert b"udcff" in encode(memory.failure)  # as the CVMS gets it


async def test_a_dataset_deeper_than_we_take(place: Bed) -> None:
    data = dataset(place.folder / "data", ("d/" * 400 + "file", tarfile.REGTYPE))
    memory = await ran(place, "true", data)
    assert (memory.failure["step"], memory.failure["code"]) == ("unpack", "too-large")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount what cannot be removed")
async def test_what_cannot_be_removed_does_not_keep_the_agent_from_starting(place: Bed) -> None:
    old = place.work / "computations" / "old"
    (old / "mounted").mkdir(parents=True)
    (old / "computation.json").write_bytes(b'{"id": "c-0", "manifest": "00"}')
    (old / "secret").write_text("x")
    dig(old, 40)
    await process.run(["mount", "-t", "tmpfs", "none", old / "mounted"])
    try:
        async with place.agent() as service:
            assert service.state is State.RECEIVING_MANIFEST
        (left,) = trees.left_in(place.work)
        assert left.stat().st_mode & 0o777 == 0
        assert [path.name for path in (left / "old").iterdir()] == ["mounted"]
        assert "could not be removed" in place.memory.events[0].details["reason"]
    finally:
        await process.run(["umount", next(place.work.glob("*/old/mounted"))])
    async with place.agent():
        assert not trees.left_in(place.work)
