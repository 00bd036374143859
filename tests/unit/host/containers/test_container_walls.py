# SPDX-License-Identifier: Apache-2.0
"""What a container hides and limits, judged by runc's own proposal."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from cocos.host import process
from cocos.host.containers.container import Container, Limits, configuration

CONTAINER = Container("c", Path("/rootfs"), ("/bin/x",), limits=Limits(file_bytes=12345))


def settings(**options: bool) -> dict[str, Any]:
    return configuration(CONTAINER, **{"cgroups": True, "rootless": False, **options})


@pytest.mark.integration
async def test_it_hides_all_that_runc_would_and_more(tmp_path: Path) -> None:
    runc = process.find_tool("runc", hint="apt-get install runc")
    await process.run([runc, "spec"], cwd=tmp_path)
    proposed = json.loads((tmp_path / "config.json").read_text())["linux"]
    for found in (settings(), settings(rootless=True), settings(cgroups=False)):
        # There is no /sys in our containers.
        hidden = {each for each in proposed["maskedPaths"] if each.startswith("/proc")}
        assert set(found["linux"]["maskedPaths"]) >= hidden | {"/proc/interrupts"}
        assert set(found["linux"]["readonlyPaths"]) >= set(proposed["readonlyPaths"])
        assert not [each for each in found["mounts"] if each["destination"].startswith("/sys")]


@pytest.mark.parametrize("cgroups", [True, False])
@pytest.mark.parametrize("rootless", [True, False])
def test_no_memory_of_a_program_goes_to_a_file(*, cgroups: bool, rootless: bool) -> None:
    limits = {
        each["type"]: (each["soft"], each["hard"])
        for each in settings(cgroups=cgroups, rootless=rootless)["process"]["rlimits"]
    }
    assert limits["RLIMIT_CORE"] == (0, 0)
    assert limits["RLIMIT_FSIZE"] == (12345, 12345)
    assert limits["RLIMIT_NOFILE"][1] <= 65536
    assert ("RLIMIT_NPROC" in limits) is ("RLIMIT_DATA" in limits) is not cgroups


def test_a_limit_that_is_lower_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 100))
    limits = {each["type"]: each["hard"] for each in settings()["process"]["rlimits"]}
    assert limits == {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 100, "RLIMIT_FSIZE": 100}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, resource.RLIM_INFINITY))
    limits = {each["type"]: each["hard"] for each in settings()["process"]["rlimits"]}
    assert limits == {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 65536, "RLIMIT_FSIZE": 12345}
