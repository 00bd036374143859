# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent: temporary name, fsync, rename."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from cocos.errors import ConfigError, NotFoundError
from cocos.host.disk import disk_error


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write ``data`` so that a crash leaves either the old file or the new one.

    Args:
        path: Target; its folder must exist.
        data: Whole content.
        mode: Permission bits, regardless of the umask.
    """
    _write(path, data, mode, Path.replace)


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Write ``data`` as :func:`write_atomic` does unless the file exists; tell whether it was.

    Of several that try at once, one writes.
    """
    try:
        _write(path, data, mode, lambda temporary, path: path.hardlink_to(temporary))
    except FileExistsError:
        return False
    return True


def _write(path: Path, data: bytes, mode: int, place: Callable[[Path, Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Translate what the system says while something is written to ``path``.

    Raises:
        StorageError: the disk is full, read-only or broken.
        ConfigError: the path is not ours to write to.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, f"cannot write {path}") from error


def read_file(path: Path, what: str, *, limit: int = 64 * 2**20) -> bytes:
    """Read a file that the user named.

    Args:
        path: The file.
        what: What it is, for the message: "the admin's public key".
        limit: Most bytes to accept.

    Raises:
        ConfigError: absent, unreadable or larger than ``limit``.
    """
    try:
        if path.stat().st_size > limit:
            raise ConfigError(f"{what}, {path}, is larger than {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        raise disk_error(error, f"cannot read {what}, {path}") from error


def read_certificates(path: Path, what: str) -> bytes:
    """Read PEM certificates to trust; none would mean the system's, or anybody, to some library.

    Raises:
        ConfigError: as :func:`read_file`, or there is no certificate in it.
    """
    data = read_file(path, what, limit=2**20)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ConfigError(f"{what}, {path}, is not PEM", hint="-----BEGIN CERTIFICATE-----")
    return data


def read_input(path: Path, what: str, *, limit: int = 64 * 2**20) -> bytes:
    """Read a file that a command is to work on; see :func:`read_file`.

    Raises:
        NotFoundError: absent.
        ConfigError: unreadable or larger than ``limit``.
    """
    if not path.exists():
        raise NotFoundError(f"{what}, {path}, is not there")
    return read_file(path, what, limit=limit)


def cache_folder(name: str) -> Path:
    """Return (and make) a private folder of ours in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "cocos" / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def data_folder(name: str) -> Path:
    """Return where the user's own data of one kind are; it need not be there yet."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "cocos" / name


def lock_file(path: Path) -> contextlib.AbstractContextManager[None]:
    """Return once we alone hold the lock that a file stands for; it is held while the block runs.

    Blocks: call it in a thread where an event loop runs.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        try:
            yield
        finally:
            os.close(descriptor)

    return held()
