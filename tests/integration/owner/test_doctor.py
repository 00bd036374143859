# SPDX-License-Identifier: Apache-2.0
"""Each finding of doctor, by making it true."""

import asyncio
import contextlib
import datetime as dt
import email.utils
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from cocos.cli.owner import doctor_checks as checks
from cocos.cli.owner import doctor_ports as ports
from cocos.cli.owner.doctor_checks import Check, Verdict, _Tool
from cocos.cli.owner.doctor_ports import _Port
from cocos.errors import PeerError, ProcessError, UnreachableError
from cocos.host import process
from cocos.host.images.skopeo import Skopeo
from cocos.host.machines import accelerator, kvm, qemu
from cocos.host.machines.qemu import Firmware
from cocos.transport.rpc import Service, serve
from cocos.wire import ocicrypt
from cocos.wire._generated import manager_pb2_grpc as pb_grpc

# It looks at the ports that guide and demo use.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("guide")]

CLI = Path(sys.executable).parent / "cocos-cli"
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@contextlib.asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[int]:
    """A server that gives everybody the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def reply(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *headers, "Content-Length: 0", "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def only(found: list[Check]) -> Check:
    (check,) = found
    return check


async def test_all_of_it_as_a_program() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = await process.run([CLI, "doctor", "--json", "--kbs", url], check=False)
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.exit_status == 1
    assert found["KBS"]["verdict"] == "failed"
    assert url in found["KBS"]["detail"]
    assert found["KBS"]["fix"]
    for name in ("python", "runc", "umoci", "bwrap", "sandbox"):
        assert found[name]["verdict"] == "ok", found[name]
    for port in (5000, 8080, 50002, 50011, 7001, 7003, 7020):
        assert found[f"port {port}"]["detail"]
    assert found["registry"]["verdict"] == "skipped"
    assert {"vms", "containers", "docker-registry"} <= set(found)


async def test_it_says_the_same_to_people() -> None:
    done = await process.run([CLI, "doctor"], check=False)
    assert "✓ python " in done.stdout.decode()
    assert "→ --kbs URL checks them" in done.stdout.decode()
    assert done.exit_status == 0


@pytest.mark.parametrize("place", ["kbs/config/docker-compose/admin-token", ".trustee/admin-token"])
async def test_a_kbs_that_is_looked_at_gets_no_token_that_nobody_named(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("e30.e30.AA")
    heads: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply(401))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        words = [str(CLI), "doctor", "--kbs", url]
        for more in ([], ["--admin-token-file", str(tmp_path / place)]):
            before, env = len(heads), {"HOME": str(tmp_path)}
            await process.run([*words, *more], check=False, cwd=tmp_path, env=env)
            sent = b"".join(heads[before:])
            assert b"/kbs/v0/unbound-key" in sent
            assert (b"e30.e30.AA" in sent) == bool(more)


@pytest.mark.parametrize(("needed", "verdict"), [(True, Verdict.FAILED), (False, Verdict.WARNING)])
async def test_a_missing_tool(needed: bool, verdict: Verdict) -> None:
    check = await checks._check_tool(_Tool("no-such-tool", "does things", needed, "no-package"))
    assert check.verdict is verdict
    assert "does things" in check.detail
    assert check.fix == "sudo apt-get install no-package"


async def test_missing_bubblewrap_fails_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    check = (await checks.check_sandbox())[0]
    assert check.verdict is Verdict.FAILED
    assert "bubblewrap" in check.fix


async def test_a_port_that_ours_answers_on() -> None:
    servicer = pb_grpc.ManagerServiceServicer()  # type: ignore[abstract]  # nobody calls it
    register = partial(pb_grpc.add_ManagerServiceServicer_to_server, servicer)
    async with serve("127.0.0.1:0", [Service("manager.ManagerService", register)]) as address:
        number = int(address.rpartition(":")[2])
        ours = await ports._check_port(_Port(number, "manager", "manager.ManagerService"))
        assert (ours.verdict, ours.detail) == (Verdict.OK, "a manager answers")
        other = await ports._check_port(_Port(number, "CVMS", "cvms.Service"))
        assert other.verdict is Verdict.WARNING
        assert "no CVMS" in other.detail
        assert str(number) in other.fix


@pytest.mark.parametrize(("status", "verdict"), [(200, Verdict.OK), (404, Verdict.WARNING)])
async def test_a_port_with_http_on_it(status: int, verdict: Verdict) -> None:
    async with answering(reply(status)) as number:
        check = await ports._check_port(_Port(number, "registry", http_path="/v2/"))
    assert check.verdict is verdict


async def test_a_port_with_noise_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.5)
    async with answering(b"\0\xff noise") as number:
        for port in (_Port(number, "a", "a.A"), _Port(number, "b", http_path="/")):
            assert (await ports._check_port(port)).verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("skew", "verdict"), [(0, Verdict.OK), (59, Verdict.OK), (3600, Verdict.FAILED)]
)
@pytest.mark.parametrize("sign", [1, -1])
async def test_the_clock(skew: int, verdict: Verdict, sign: int) -> None:
    theirs = email.utils.format_datetime(NOW + dt.timedelta(seconds=sign * skew), usegmt=True)
    async with answering(reply(405, f"Date: {theirs}")) as port:
        kbs, clock = await checks.check_kbs(f"http://127.0.0.1:{port}/", lambda: NOW)
    assert kbs.verdict is Verdict.OK
    assert clock.verdict is verdict


@pytest.mark.parametrize("date", ["Date: soon", "X: y"])
async def test_a_kbs_without_time(date: str) -> None:
    async with answering(reply(405, date)) as port:
        _, clock = await checks.check_kbs(f"http://127.0.0.1:{port}", lambda: NOW)
    assert clock.verdict is Verdict.SKIPPED


async def test_something_that_is_no_kbs() -> None:
    async with answering(reply(404)) as port:
        check = only(await checks.check_kbs(f"http://127.0.0.1:{port}", lambda: NOW))
    assert (check.verdict, "404" in check.detail) == (Verdict.FAILED, True)


@pytest.mark.parametrize("url", ["http://[", "no url", "http://127.0.0.1:1", "https://127.0.0.1:1"])
async def test_a_kbs_that_is_not_there(url: str) -> None:
    check = only(await checks.check_kbs(url, lambda: NOW))
    assert check.verdict is Verdict.FAILED
    assert url in check.detail


@pytest.mark.parametrize(("status", "verdict"), [(200, Verdict.OK), (500, Verdict.FAILED)])
async def test_a_registry(status: int, verdict: Verdict) -> None:
    async with answering(reply(status)) as port:
        assert only(await checks.check_registry(f"localhost:{port}")).verdict is verdict
    assert only(await checks.check_registry(f"localhost:{port}")).verdict is Verdict.FAILED


async def test_the_probe_vm_boots_by_emulation_everywhere() -> None:
    await kvm.probe(accelerator="tcg")


async def test_kvm_is_used_only_where_a_vm_has_booted_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    probed: list[Firmware] = []

    async def hangs(firmware: Firmware) -> None:
        probed.append(firmware)
        raise UnreachableError("the probe VM hung")

    monkeypatch.setattr(kvm, "usable", lambda: True)
    monkeypatch.setattr(kvm, "probe", hangs)
    found = await accelerator.choose()
    assert found == accelerator.Accelerator("tcg", "no KVM: the probe VM hung")
    assert await accelerator.choose() == found
    assert probed == [qemu.OVMF]
    _, vms = await checks.check_vms()
    assert vms.detail == "emulated, slowly: no KVM: the probe VM hung"
    # The finding is believed, until the machine is another one.
    finding = tmp_path / "cocos" / "accelerator" / "kvm.json"
    kept = json.loads(finding.read_bytes())
    finding.write_text(json.dumps({**kept, "works": True, "reason": "as noted"}))
    assert await accelerator.choose() == accelerator.Accelerator("kvm", "as noted")
    for other in (json.dumps({**kept, "machine": "another"}), "{"):
        finding.write_text(other)
        assert await accelerator.choose() == found
    assert len(probed) == 3
    # So with another firmware, which is the one that is probed.
    own = Firmware(tmp_path / "code.fd", tmp_path / "variables.fd")
    own.code.write_bytes(b"code")
    own.variables.write_bytes(b"variables")
    await accelerator.choose("auto", own)
    assert probed[3:] == [own]


async def test_the_probe_boots_the_firmware_that_it_is_given(tmp_path: Path) -> None:
    own = Firmware(tmp_path / "absent.fd", tmp_path / "variables.fd")
    own.variables.write_bytes(b"variables")
    with pytest.raises(ProcessError, match=r"absent\.fd"):
        await kvm.probe(own, accelerator="tcg")


async def test_vms_are_looked_at_as_the_environment_configures_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANAGER_IMAGE_FOLDER", str(tmp_path))
    monkeypatch.setenv("MANAGER_QEMU_ACCELERATOR", "tcg")
    for name in ("cocos.efi", "root.img"):
        (tmp_path / name).touch()
    image, vms = await checks.check_vms()
    assert (image.verdict, image.detail) == (Verdict.OK, f"in {tmp_path}")
    assert (vms.detail, vms.fix) == ("emulated, slowly: as configured", "")
    monkeypatch.setenv("MANAGER_QEMU_OVMF_CODE_FILE", str(tmp_path / "none.fd"))
    assert str(tmp_path / "none.fd") in (await checks.check_vms())[1].detail
    monkeypatch.setenv("MANAGER_QEMU_ACCELERATOR", "magic")
    failed = only(await checks.check_vms())
    assert (failed.verdict, "accelerator" in failed.detail) == (Verdict.FAILED, True)


async def test_a_configured_accelerator() -> None:
    assert (await accelerator.choose("tcg")).name == "tcg"
    if (await accelerator.choose()).name == "tcg":
        with pytest.raises(PeerError, match="KVM is configured but"):
            await accelerator.choose("kvm")


async def test_a_tool_is_judged_by_what_it_does() -> None:
    """Debian 12's swtpm_setup is there and works, and ends with 1 after its version."""
    found = {tool.name: tool for tool in checks.TOOLS}
    assert (await checks._check_tool(found["swtpm_setup"])).verdict is Verdict.OK


async def test_a_skopeo_that_the_shell_has_not_is_a_warning(
    tool: Skopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = f"{tmp_path}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", bare)
    if shutil.which("skopeo") is None:
        missing = only(await checks.check_skopeo())
        assert missing.verdict is Verdict.WARNING
        assert "not on PATH" in missing.detail
    old = tmp_path / "skopeo"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    check = only(await checks.check_skopeo())
    assert check.verdict is Verdict.WARNING
    assert f"{old}, cannot use key providers" in check.detail
    assert check.fix == 'eval "$(cocos-cli env)"'
    programs = tool.install_wrapper(tmp_path / "env")
    monkeypatch.setenv("PATH", f"{programs}:{bare}")
    assert only(await checks.check_skopeo()).verdict is Verdict.OK


async def test_a_key_provider_that_skopeo_would_ask_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    port = _Port(number, "key provider", "keyprovider.KeyProviderService")
    config = tmp_path / "ocicrypt.json"
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(config))
    assert (await ports._check_port(port)).verdict is Verdict.OK
    config.write_bytes(ocicrypt.grpc_config(f"127.0.0.1:{number}"))
    check = await ports._check_port(port)
    assert check.verdict is Verdict.WARNING
    assert "no key provider answers" in check.detail
    assert f"coco-keyprovider --socket 127.0.0.1:{number}" in check.fix
    for other in ("[]", "{", '{"key-providers": {"attestation-agent": {"cmd": {}}}}'):
        config.write_text(other)
        assert (await ports._check_port(port)).verdict is Verdict.OK
