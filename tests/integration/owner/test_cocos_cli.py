# SPDX-License-Identifier: Apache-2.0
"""cocos-cli and cocos-manager as programs, with the real guest programs in real sandboxes."""

import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _local_vms import CLI, Host, command_lines, fences, groups, guest, managing, unused_port
from _manager import eventually
from _programs import running

from cocos.errors import ProcessError
from cocos.host import process

pytestmark = pytest.mark.integration


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with managing(tmp_path / "state") as host:
        yield host


async def test_create_list_show_logs_remove(host: Host) -> None:
    done = await host.agent("create", "--cvms-url", f"http://127.0.0.1:{unused_port()}")
    vm_id = done.stdout.decode().strip().rpartition(" ")[2]
    assert done.stdout.decode() == f"Virtual machine created with id {vm_id}\n"
    listed = (await host.agent("list")).stdout.decode()
    assert f"{vm_id}  running" in listed
    shown = json.loads((await host.agent("show", vm_id, "--json")).stdout)
    assert (shown["id"], shown["backend"], shown["cpus"]) == (vm_id, "local", os.cpu_count())
    assert "insecure" in shown["cpu_type"]
    log = (await host.agent("logs", vm_id)).stdout.decode()
    assert "local-insecure" in log
    for program in ("attestation-agent", "coco-keyprovider"):
        assert f"{program}: listening on unix:/run/cocos/" in log
    assert "insecure" in host.manager.text
    await host.agent("remove", vm_id)
    assert await host.states() == {}
    assert not fences(vm_id)
    assert not groups(vm_id)
    assert not list((host.state / "vms").iterdir())


async def test_a_vms_folder_is_private(host: Host) -> None:
    vm_id = await host.create()
    folder = host.state / "vms" / vm_id / "vm"
    for path in [folder, *folder.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    config = json.loads((folder / "etc" / "ocicrypt.json").read_text())
    assert config["key-providers"]["attestation-agent"]["grpc"].startswith("unix:/run/cocos/")
    registries = (folder / "etc" / "registries.conf").read_text()
    assert registries.count("insecure = true") == 3
    for path in (folder / "etc").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_crash_names_the_program(host: Host) -> None:
    vm_id = await host.create()
    os.kill(guest(vm_id, "coco-keyprovider"), signal.SIGKILL)
    vm = await host.until(vm_id, "failed")
    assert str(vm["reason"]).startswith("coco-keyprovider ended with exit code 137: ")
    assert not fences(vm_id)
    assert "listening" in (await host.agent("logs", vm_id)).stdout.decode()
    waited = await host.agent("logs", "-f", vm_id)  # ends, as the VM has
    assert waited.exit_status == 0


async def test_wait_tells_how_it_ended(host: Host) -> None:
    done = await host.agent(
        "create", "--cvms-url", f"http://127.0.0.1:{unused_port()}", "--ttl", "2s", "--wait",
        check=False,
    )  # fmt: skip
    assert done.exit_status != 0
    assert b"has expired: its time to live was over" in done.stderr
    assert b"listening on unix:" in done.stderr
    assert done.stdout.startswith(b"Virtual machine created with id ")


async def test_the_original_words_work(host: Host) -> None:
    url = f"http://{host.manager.address}"
    env = {"MANAGER_GRPC_URL": url}
    words = ["create-vm", "--server-url", f"127.0.0.1:{unused_port()}", "--json"]
    done = await process.run(
        [CLI, *words, "--aa-kbs-params", "cc_kbc::http://127.0.0.1:1"], env=env
    )
    vm_id = json.loads(done.stdout)["id"]
    await process.run([CLI, "remove-vm", vm_id], env=env)
    assert await host.states() == {}


async def test_nothing_survives_a_killed_manager(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with managing(state) as host:
        vm_id = await host.create()
        (manager,) = (
            pid for pid, words in command_lines()
            if str(state).encode() in words and b"cocos-manager" in words
        )  # fmt: skip
        assert len(fences(vm_id)) == 6  # an outer and an inner one per program
        os.kill(manager, signal.SIGKILL)
        await eventually(lambda: not fences(vm_id))
    async with managing(state) as host:
        vm = (await host.states())[vm_id]
        assert vm["state"] == "lost"
        assert vm["reason"]
        assert sorted(path.name for path in (state / "vms" / vm_id).iterdir()) == [
            "console.log",
            "vm.json",
        ]
        assert not groups(vm_id)
        await host.agent("remove", vm_id)
        assert not list((state / "vms").iterdir())


async def test_a_stopped_manager_stops_its_vms(tmp_path: Path) -> None:
    async with managing(tmp_path / "state") as host:
        vm_id = await host.create()
    assert not fences(vm_id)
    assert not groups(vm_id)


async def test_two_managers_do_not_share_a_state_folder(host: Host) -> None:
    words = ["--backend", "local", "--grpc-port", "0", "--http-port", "0"]
    words += ["--state-folder", str(host.state)]
    with pytest.raises(AssertionError, match="another manager uses"):
        async with running("cocos-manager", *words):
            pass


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--ttl", "soon"], b"no duration"),
        (["--log-level", "loud"], b"log level"),
        (["--aa-kbs-params", "x::y"], b"cc_kbc"),
        (["--client-key", "/dev/null"], b"a client certificate and its key"),
        (["--server-ca", "/nothing"], b"/nothing"),
    ],
)
async def test_bad_requests_start_nothing(host: Host, words: list[str], problem: bytes) -> None:
    if words[0] == "--client-key":
        key = host.state.parent / "key.pem"
        key.write_text("x")
        words = ["--client-key", str(key)]
    done = await host.agent("create", "--cvms-url", "h:1", *words, check=False)
    assert done.exit_status in {2, 65, 66, 76, 78}
    assert problem in done.stderr
    assert await host.states() == {}


async def test_an_unreachable_manager_is_named() -> None:
    address = f"127.0.0.1:{unused_port()}"
    for words in (["list"], ["create", "--cvms-url", "h:1"], ["remove", "x"], ["logs", "x"]):
        done = await process.run(
            [CLI, "agent", *words, "--manager-url", f"http://{address}"], check=False
        )
        assert done.exit_status == 69
        assert address.encode() in done.stderr
        assert b"hint: start it with cocos-manager" in done.stderr


async def test_an_api_for_everybody_needs_the_word(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="anybody could start VMs"):
        await process.run(
            [CLI.parent / "cocos-manager", "--grpc-host", "10.9.9.9", "--state-folder", tmp_path]
        )
