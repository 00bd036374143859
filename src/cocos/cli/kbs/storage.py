# SPDX-License-Identifier: Apache-2.0
"""Where a key broker keeps things, and the key that opens it; ``kbs rekey``."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import structlog
import typer

from cocos._clock import Clock, system_clock
from cocos.cli import _common as common
from cocos.crypto.envelope import RootKey
from cocos.errors import CocosError, ConfigError, UsageError
from cocos.host.files import data_folder
from cocos.host.root_keys.file import FileRootKey, parse_root_key
from cocos.host.root_keys.tpm import TpmRootKey
from cocos.kbs.config import Settings
from cocos.kbs.settings import trustee as trustee_config
from cocos.stores.base import Store
from cocos.stores.keyring import RootKeySource
from cocos.stores.opening import Storage, open_storage
from cocos.stores.rekey import Rekeyed, rekey
from cocos.stores.sql import describe, has_password, sqlite_file, storage_url

SWEEP_SECONDS: Final = 60.0
KEY_FILE: Final = "storage.key"
PIN_VARIABLE: Final = "KBS_PKCS11_PIN"

_NAME: Final = "kbs"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
_PCRS: Final = 24
_HINT: Final = "file:PATH, env:VARIABLE, tpm:PATH or a PKCS#11 URI"

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, *, clock: Clock = system_clock, create: bool = True
) -> AsyncIterator[Storage]:
    """Have the storage of the settings open while the block runs; begin it if there is none."""
    async with contextlib.AsyncExitStack() as stack:
        url = storage_url(_place(settings, stack))
        yield await stack.enter_async_context(_opened(settings, url, clock, create=create))


@contextlib.asynccontextmanager
async def _opened(
    settings: Settings, url: str, clock: Clock, *, create: bool
) -> AsyncIterator[Storage]:
    sources = [root_key_source(text) for text in settings.storage_key] or [_default_key(url)]
    async with open_storage(
        url, sources, sessions_url=settings.session_storage, clock=clock, create=create
    ) as storage:
        _log.info("kbs.storage", url=describe(url), key=str(sources[0]))
        yield storage


@contextlib.asynccontextmanager
async def sweeping(store: Store) -> AsyncIterator[None]:
    """Delete what has expired, now and then, while the block runs."""

    async def forever() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                _log.debug("kbs.swept", values=await store.sweep())
            except CocosError as error:
                cause = repr(error.__cause__)
                _log.warning("kbs.sweep-failed", error=error.message, cause=cause)

    task = asyncio.create_task(forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def without_password(url: str | None, flag: str, instead: str) -> str | None:
    """Return a URL of the command line, which every user of this machine can read.

    Raises:
        UsageError: it has a password.
    """
    if url is not None and has_password(url):
        raise UsageError(
            f"{flag} has a password, which other users of this machine can see",
            hint=f"put it into {instead}, or the URL into the configuration file",
        )
    return url


def root_key_source(text: str) -> RootKeySource:
    """Return the source of a root key as people name it.

    Raises:
        ConfigError: no such form.
    """
    kind, _, rest = text.partition(":")
    if kind not in _SOURCES or not rest:
        raise ConfigError(f"{text[:200]!r} names no key of a storage", hint=_HINT)
    return _SOURCES[kind](rest)


class _Variable:
    """A root key in an environment variable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"env:{self._name}"

    async def load(self) -> RootKey | None:
        """Return the key."""
        value = os.environ.get(self._name)
        if not value:
            raise ConfigError(f"the variable {self._name} with the key of the storage is not set")
        return parse_root_key(value.encode(), f"the variable {self._name}")

    async def create(self) -> RootKey:
        """Refuse: a variable is somebody else's to set."""
        raise ConfigError(f"the variable {self._name} with the key of the storage is not set")


def _tpm(text: str) -> RootKeySource:
    path, _, query = text.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    pcrs = options.pop("pcrs", "")
    tcti = options.pop("tcti", None)
    numbers = [int(word) for word in pcrs.split(",") if word.isdecimal()]
    if (
        options
        or len(numbers) != len(pcrs.split(",") if pcrs else ())
        or any(number >= _PCRS for number in numbers)
    ):
        raise ConfigError("the TPM's key has unusable options", hint="tpm:PATH?pcrs=0,7&tcti=…")
    return TpmRootKey(Path(path), pcrs=numbers, tcti=tcti)


def _pkcs11(text: str) -> RootKeySource:
    # Loads a library that few need.
    from cocos.host.root_keys.pkcs11 import Pkcs11RootKey, Pkcs11Uri  # noqa: PLC0415

    return Pkcs11RootKey(Pkcs11Uri.parse(text), pin=os.environ.get(PIN_VARIABLE))


_SOURCES: Final[Mapping[str, Callable[[str], RootKeySource]]] = {
    "file": lambda path: FileRootKey(Path(path)),
    "env": _Variable,
    "tpm": _tpm,
    "pkcs11": _pkcs11,
}


def _place(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    if settings.storage != trustee_config.MEMORY:
        return settings.storage or str(data_folder(_NAME))
    _log.warning("kbs.storage-in-memory", meaning="everything is lost when this program ends")
    # SQLite in a file system that is memory: several connections can share it.
    return stack.enter_context(tempfile.TemporaryDirectory(prefix="cocos-kbs-", dir=_MEMORY))


def _default_key(url: str) -> RootKeySource:
    file = sqlite_file(url)
    folder = data_folder(_NAME) if file is None else file.parent
    return FileRootKey(folder / KEY_FILE)


def rekey_command(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Seal the storage anew with a new key, while key brokers serve from it.

    Options that say where the storage is and which keys open it come before the command:
    kbs --storage … --storage-key NEW --storage-key OLD rekey. The first key wraps from now
    on. After an interruption, run it again.
    """
    done = common.run_async(_rekey(context.obj))
    common.emit(
        {"key": done.key_id, "records": done.records},
        lambda: common.stdout.print(
            f"sealed {done.records} records with the new key {done.key_id}", markup=False
        ),
        as_json=as_json,
    )


async def _rekey(settings: Settings) -> Rekeyed:
    with common.stderr.status("sealing records") as status:

        def show(done: int, whole: int) -> None:
            status.update(f"sealing records: {done} of {whole}")

        async with opened(settings, create=False) as storage:
            return await rekey(storage, show)
