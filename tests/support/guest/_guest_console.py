# SPDX-License-Identifier: Apache-2.0
"""A VM whose serial console is a shell: for tests of debug images, without our manager."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from cocos.host import process
from cocos.wire.init_data import to_disk

PROMPT = b"cocos-debug# "
BOOT_SECONDS = 400.0  # emulated, on a busy machine
COMMAND_SECONDS = 200.0
FIRMWARE = Path("/usr/share/OVMF")
_CONTROL = re.compile(rb"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-B0-2]|c)|\r")

_KERNEL = re.compile(r"\[ *[0-9]+\.[0-9]+\] ")  # what others print there


class Console:
    """What the VM printed, and a way to type."""

    def __init__(self, qemu: asyncio.subprocess.Process) -> None:
        assert qemu.stdout is not None
        assert qemu.stdin is not None
        self._output = qemu.stdout
        self._input = qemu.stdin
        self._pending = b""
        self.text = ""

    async def boot(self) -> None:
        """Wait for the shell."""
        async with asyncio.timeout(BOOT_SECONDS):
            await self._until(PROMPT)

    async def run(self, command: str) -> str:
        """Run a command and return what it wrote to both outputs."""
        # The shell echoes what is typed, and others print in between: no mark is typed as it is.
        self._input.write(f"echo BE''GIN; {command} 2>&1 | cat; echo DO''NE\n".encode())
        async with asyncio.timeout(COMMAND_SECONDS):
            await self._until(b"BEGIN\n")
            output = await self._until(b"DONE\n")
            await self._until(PROMPT)
        lines = output.splitlines(keepends=True)
        return "".join(line for line in lines if not _KERNEL.match(line))

    async def _until(self, mark: bytes) -> str:
        while mark not in self._pending:
            chunk = await self._output.read(65536)
            if not chunk:
                raise AssertionError(f"the VM ended; it printed: {self.text[-2000:]}")
            self._take(chunk)
        before, _, self._pending = self._pending.partition(mark)
        return before.decode(errors="replace")

    def _take(self, chunk: bytes) -> None:
        plain = _CONTROL.sub(b"", chunk)
        self._pending += plain
        self.text += plain.decode(errors="replace")


@contextlib.asynccontextmanager
async def machine(image: Path, init_data: bytes, folder: Path) -> AsyncIterator[Console]:
    """Boot an image, emulated, with a fresh TPM; kill it at the end."""
    (folder / "init.img").write_bytes(to_disk(init_data))
    with (folder / "scratch.img").open("wb") as scratch:
        scratch.truncate(2 * 2**30)
    shutil.copyfile(FIRMWARE / "OVMF_VARS_4M.fd", folder / "vars.fd")
    state = folder / "tpm"
    state.mkdir()
    words = ["--tpm2", "--tpmstate", str(state), "--pcr-banks", "sha256", "--overwrite"]
    await process.run(["swtpm_setup", *words], timeout=120)
    socket = folder / "tpm.sock"
    tpm = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"]
    tpm += ["--ctrl", f"type=unixio,path={socket}", "--flags", "startup-clear"]
    async with process.spawn(tpm):
        while not socket.exists():  # noqa: ASYNC110 - swtpm has no other way to tell
            await asyncio.sleep(0.01)
        argv = _qemu(image, folder, socket)
        pipe = asyncio.subprocess.PIPE
        async with process.spawn(argv, stdin=pipe, stdout=pipe, limit=2**20) as qemu:
            try:
                yield Console(qemu)
            finally:
                if qemu.returncode is None:
                    qemu.kill()


def _qemu(image: Path, folder: Path, socket: Path) -> list[str]:
    words = [
        "qemu-system-x86_64",
        "-machine",
        "q35,accel=tcg,smm=off",
        "-cpu",
        "max,avx=off,avx2=off",
    ]
    words += ["-smp", "2", "-m", "1536M", "-nodefaults", "-display", "none", "-no-reboot"]
    words += ["-serial", "stdio", "-kernel", str(image / "cocos.efi")]
    code, variables = FIRMWARE / "OVMF_CODE_4M.fd", folder / "vars.fd"
    words += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
    words += ["-drive", f"if=pflash,format=raw,file={variables}"]
    for name, path, writable in (
        ("cocos-root", image / "root.img", False),
        ("cocos-initdata", folder / "init.img", False),
        ("cocos-scratch", folder / "scratch.img", True),
    ):
        mode = "" if writable else ",readonly=on"
        words += ["-drive", f"if=none,id={name},format=raw,file={path}{mode}"]
        words += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    words += ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile="]
    words += ["-chardev", f"socket,id=tpm0,path={socket}"]
    words += ["-tpmdev", "emulator,id=t0,chardev=tpm0", "-device", "tpm-tis,tpmdev=t0"]
    return words
