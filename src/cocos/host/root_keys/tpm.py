# SPDX-License-Identifier: Apache-2.0
"""The key that opens a key broker's storage, sealed by the TPM of its machine.

The file holds the key encrypted by a TPM: it opens with that TPM alone, and with PCRs
named, only while they have the values of when it was made. tpm2-tools do the work; the
key goes through pipes.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from cocos.crypto import kek
from cocos.crypto.envelope import RootKey
from cocos.errors import ConfigError, FormatError, ProcessError, UnreachableError
from cocos.host import process
from cocos.host.disk import disk_error
from cocos.host.files import read_file, write_new
from cocos.host.root_keys.file import parse_root_key
from cocos.wire import json

INSTALL_HINT = "apt-get install tpm2-tools"
TOOL_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class _Sealed(msgspec.Struct, frozen=True):
    """The file: what a TPM needs to open it again."""

    public: bytes
    private: bytes
    pcrs: str = ""


class TpmRootKey:
    """A root key in a file that only this machine's TPM opens."""

    def __init__(self, path: Path, *, pcrs: Sequence[int] = (), tcti: str | None = None) -> None:
        """Describe the key.

        Args:
            path: The file.
            pcrs: SHA-256 PCRs that a new key is bound to.
            tcti: How tpm2-tools reach the TPM; None leaves that to them.
        """
        self._path = path
        self._pcrs = "sha256:" + ",".join(map(str, sorted(pcrs))) if pcrs else ""
        self._env = {} if tcti is None else {"TPM2TOOLS_TCTI": tcti}

    def __str__(self) -> str:
        return f"tpm:{self._path}"

    async def load(self) -> RootKey | None:
        """Return the key, or None if there is no such file.

        Raises:
            ConfigError: the file is no such key, or this TPM does not open it.
        """
        if not await asyncio.to_thread(self._path.exists):
            return None
        data = await asyncio.to_thread(read_file, self._path, "the sealed key of the storage")
        try:
            sealed: _Sealed = json.decode(data, _Sealed, str(self._path))
        except FormatError as error:
            raise ConfigError(f"{self._path} is not a key that a TPM has sealed") from error
        with tempfile.TemporaryDirectory(prefix="cocos-tpm-") as name:
            folder = Path(name)
            (folder / "public").write_bytes(sealed.public)
            (folder / "private").write_bytes(sealed.private)
            await self._primary(folder)
            words = ["-C", "primary", "-u", "public", "-r", "private", "-c", "sealed"]
            await self._tool(folder, "load", *words)
            await self._tool(folder, "flushcontext", "-t")
            session = ["-p", f"pcr:{sealed.pcrs}"] if sealed.pcrs else []
            key = await self._tool(folder, "unseal", "-c", "sealed", *session)
        return parse_root_key(key, f"the sealed key of the storage, {self._path},")

    async def create(self) -> RootKey:
        """Have the TPM seal a new key, and return it.

        Raises:
            ConfigError: there is no TPM, or the file cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="cocos-tpm-") as name:
            folder = Path(name)
            await self._primary(folder)
            words = ["-C", "primary", "-u", "public", "-r", "private", "-i", "-", "-a"]
            if self._pcrs:
                policy = ["-L", "policy"]
                await self._tool(folder, "createpolicy", "--policy-pcr", "-l", self._pcrs, *policy)
                words += ["fixedtpm|fixedparent|noda", *policy]
            else:
                words += ["fixedtpm|fixedparent|noda|userwithauth"]
            await self._tool(folder, "create", *words, stdin=kek.generate())
            public, private = ((folder / part).read_bytes() for part in ("public", "private"))
        try:
            await asyncio.to_thread(self._path.parent.mkdir, 0o700, True, True)
            record = json.encode(_Sealed(public, private, self._pcrs))
            await asyncio.to_thread(write_new, self._path, record)
        except OSError as error:
            raise disk_error(error, f"cannot write {self._path}") from error
        made = await self.load()
        if made is None:
            raise ConfigError(f"{self._path} has vanished")
        _log.info("storage.key-made", file=str(self._path), sealed_by="TPM", pcrs=self._pcrs)
        return made

    async def _primary(self, folder: Path) -> None:
        """Make the storage root key, which a TPM makes anew from its seed each time."""
        await self._tool(folder, "createprimary", "-C", "o", "-G", "ecc", "-c", "primary")
        await self._tool(folder, "flushcontext", "-t")

    async def _tool(
        self, folder: Path, name: str, *words: str, stdin: bytes | None = None
    ) -> bytes:
        tool = process.find_tool(f"tpm2_{name}", hint=INSTALL_HINT)
        try:
            done = await process.run(
                [tool, *words], cwd=folder, env=self._env, stdin=stdin, timeout=TOOL_SECONDS
            )
        except (ProcessError, UnreachableError) as error:
            raise ConfigError(
                f"the TPM does not do its part for {self._path}: {error.message}",
                hint="the key opens only with the TPM that sealed it, and only while the PCRs that "
                "it is bound to have not changed",
            ) from error
        return done.stdout
