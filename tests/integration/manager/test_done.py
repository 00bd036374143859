# SPDX-License-Identifier: Apache-2.0
"""A VM ends with its computation, not before its result is stored, and says how that ended."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from _cvms import Cvms
from _images import algorithm
from _local_vms import Host, fences, managing
from _owner import PUBLIC

from cocos.cvms.order import consumer_key
from cocos.cvms.record import Verdict
from cocos.cvms.service import Ending
from cocos.host.images.skopeo import Skopeo
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

pytestmark = pytest.mark.integration

SECONDS = 90

Order = Callable[[str], Awaitable[Computation]]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with managing(tmp_path / "state", "--max-vms", "1") as host:
        yield host


@pytest.fixture
def order(tool: Skopeo, registry: str, tmp_path: Path) -> Order:
    async def made(script: str) -> Computation:
        algorithm(tmp_path / "algo", script, env=("PATH=/bin",))
        url = f"docker://{registry}/algo:v1"
        await tool.copy(f"oci:{tmp_path}/algo", url)
        program = Algorithm(Source("oci-image", url))
        return Computation("c-1", program, result_consumers=(consumer_key(PUBLIC),))

    return made


async def ending(cvms: Cvms) -> Ending:
    return await asyncio.wait_for(cvms.endings.get(), SECONDS)


async def shown(host: Host, vm_id: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((await host.agent("show", vm_id, "--json")).stdout)
    return facts


async def test_a_vm_ends_with_its_computation(host: Host, order: Order, tmp_path: Path) -> None:
    cvms = Cvms(await order("echo done"), tmp_path / "results")
    async with cvms.serving() as address:
        vm_id = await host.create(cvms=address)
        assert await ending(cvms) == Ending(Verdict.COMPLETE)
        vm = await host.until(vm_id, "ended")
        assert (vm["outcome"], vm["reason"]) == ("completed", "its computation c-1 completed")
        assert cvms.service.result_path.exists()
        assert not fences(vm_id)
        assert (await shown(host, vm_id))["outcome"] == "completed"
        assert f"{vm_id}  ended  completed" in (await host.agent("list")).stdout.decode()
    await host.create()  # as many as may run: the first does not count any more


async def test_a_failure_is_its_outcome(host: Host, order: Order, tmp_path: Path) -> None:
    cvms = Cvms(await order("echo the cause >&2; exit 3"), tmp_path / "results")
    async with cvms.serving() as address:
        done = await host.agent("create", "--cvms-url", f"http://{address}", "--wait", check=False)
        assert done.exit_status == 1
        assert b"its computation c-1 failed: the algorithm failed with exit code 3" in done.stderr
        assert (await ending(cvms)).verdict is Verdict.FAILED
    (vm,) = (await host.states()).values()
    assert (vm["state"], vm["outcome"]) == ("ended", "failed")
    assert "the cause" not in str(vm)  # what it prints is for those whom the manifest names


async def test_it_does_not_end_before_its_result_is_stored(
    host: Host, order: Order, tmp_path: Path
) -> None:
    cvms = Cvms(await order("busybox sleep 1; echo done"), tmp_path / "results")
    async with cvms.serving() as address:
        vm_id = await host.create(cvms=address)
        await cvms.until(event="Running", status="InProgress")
    async with asyncio.timeout(SECONDS):  # nobody is there any more when the result is
        while b"state=ConsumingResults" not in (await host.agent("logs", vm_id)).stdout:
            pass
        while "CVMS unreachable" not in str((vm := (await host.states())[vm_id])["problem"]):
            pass
    assert (vm["state"], vm["outcome"]) == ("running", "")
    async with cvms.serving(address):
        assert await ending(cvms) == Ending(Verdict.COMPLETE)
        assert (await host.until(vm_id, "ended"))["outcome"] == "completed"
    assert cvms.service.result_path.exists()


async def test_a_vm_that_was_told_to_stay_is_done_and_quiet(
    host: Host, order: Order, tmp_path: Path
) -> None:
    computation = await order("echo done")
    first = Cvms(computation, tmp_path / "results")
    async with first.serving() as address:
        vm_id = await host.create("--keep", cvms=address)
        assert await ending(first) == Ending(Verdict.COMPLETE)
        assert (await host.until(vm_id, "done"))["outcome"] == "completed"
        async with asyncio.timeout(SECONDS):
            while b"ending.stored" not in (await host.agent("logs", vm_id)).stdout:
                pass
    other = Cvms(computation, tmp_path / "others")
    async with other.serving(address):
        await other.until(state="Complete")
        # What it had to say it has said: to whom it said it.
        assert not [entry for entry in other.shown if "event" in entry or "result" in entry]
    assert (await host.states())[vm_id]["state"] == "done"
    await host.agent("remove", vm_id)
    assert not fences(vm_id)


async def test_a_cvms_that_cannot_be_reached_is_named(host: Host) -> None:
    for number, url in enumerate(("http://nohost.invalid:7001", "http://127.0.0.1:9")):
        vm_id = json.loads((await host.agent("create", "--cvms-url", url, "--json")).stdout)["id"]
        async with asyncio.timeout(SECONDS):
            while not (vm := (await host.states())[vm_id])["problem"]:
                pass
        assert vm["state"] == "running"
        assert str(vm["problem"]).startswith("CVMS unreachable: ")
        assert url.removeprefix("http://") in str(vm["problem"])
        if not number:
            assert "CVMS unreachable: " in (await host.agent("list")).stdout.decode()
            assert "CVMS unreachable: " in (await host.agent("show", vm_id)).stdout.decode()
        await host.agent("remove", vm_id)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--cvms-url", "h:1", "--aa-kbs-params", "x"), b"cc_kbc::"),
        (("--cvms-url", "h:1", "--aa-kbs-params", "cc_kbc::x"), b"--kbs"),
        (("--cvms-url", "h:1", "--aa-kbs-params", "cc_kbc:http://x"), b"cc_kbc::"),
        (("--cvms-url", "ftp://h:1"), b"no address of"),
        (("--cvms-url", "http://h:0"), b"no address of"),
        (("--cvms-url", "http://no host:7001"), b"no address of"),
        (("--cvms-url", "http://127.1:7001"), b"no address of"),
    ],
)
async def test_the_form_is_checked_before_anything_starts(
    host: Host, words: tuple[str, ...], problem: bytes
) -> None:
    done = await host.agent("create", *words, check=False)
    assert done.exit_status not in {0, 70}
    assert problem in done.stderr
    assert await host.states() == {}
    assert not list((host.state / "vms").iterdir())
