# SPDX-License-Identifier: Apache-2.0
"""The manager's folder: one private sub-folder per VM, records that survive a crash.

::

    manager.lock
    vms/<id>/vm.json        the record
    vms/<id>/console.log    what it printed
    vms/<id>/vm/            the backend's own; gone when the VM has ended
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from cocos.errors import ConfigError, FormatError
from cocos.host import trees
from cocos.host.disk import disk_error
from cocos.host.files import write_atomic
from cocos.manager.records import VmRecord

_BACKEND = "vm"

_log = structlog.get_logger(__name__)


class StateFolder:
    """Where the manager keeps what must survive it. One manager at a time has it."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._vms = self._path / "vms"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder and take it.

        Raises:
            ConfigError: it cannot be made, others can read it, or another manager has it.
        """
        try:
            self._vms.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.chmod(0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(self._path / "manager.lock", flags, 0o600)
        except OSError as error:
            problem = disk_error(error, f"cannot use the state folder {self._path}")
            problem.hint = "name another one with --state-folder"
            raise problem from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ConfigError(
                f"another manager uses the state folder {self._path}",
                hint="stop it, or name another folder with --state-folder",
            ) from error

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def records(self, on_drop: Callable[[str, Path], None] | None = None) -> list[VmRecord]:
        """Return every record, oldest first; folders without a sound one are deleted.

        Args:
            on_drop: Gets name and backend's folder of each that will be deleted.
        """
        found = []
        for folder in sorted(self._vms.iterdir()):
            try:
                record = VmRecord.from_json((folder / VmRecord.FILE).read_bytes())
            except (OSError, FormatError) as error:
                _log.warning("state.dropped", folder=folder.name, error=str(error))
                if on_drop is not None:
                    on_drop(folder.name, folder / _BACKEND)
                trees.discard(folder)
                continue
            found.append(record)
        return sorted(found, key=lambda record: record.created)

    def make(self, record: VmRecord) -> Path:
        """Make the folders of a new VM and write its record; return the backend's folder."""
        backend_folder = self.folder(record.id)
        backend_folder.parent.mkdir(mode=0o700)
        backend_folder.mkdir(mode=0o700)
        self.save(record)
        return backend_folder

    def save(self, record: VmRecord) -> None:
        """Write a record, durably."""
        write_atomic(self._vms / record.id / VmRecord.FILE, record.to_json())

    def folder(self, vm_id: str) -> Path:
        """Return the backend's folder of a VM."""
        return self._vms / vm_id / _BACKEND

    def console(self, vm_id: str) -> Path:
        """Return the path of a VM's console log."""
        return self._vms / vm_id / "console.log"

    def clean(self, vm_id: str) -> None:
        """Delete what the backend left of a VM; record and console stay."""
        trees.discard(self.folder(vm_id))

    def forget(self, vm_id: str) -> None:
        """Delete everything of a VM."""
        trees.discard(self._vms / vm_id)
