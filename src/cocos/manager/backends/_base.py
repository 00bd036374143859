# SPDX-License-Identifier: Apache-2.0
"""What every kind of VM has in common."""

import abc
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cocos.errors import InternalError
from cocos.manager.console import Console
from cocos.manager.plan import VmPlan


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a VM of a backend is made of, as ``CVMInfo`` reports it."""

    cpu_count: int
    cpu_type: str
    ovmf_version: str = ""
    kernel_command: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a VM ended by itself: why, in a sentence, and whether that is a failure."""

    reason: str
    failed: bool


class Vm(abc.ABC):
    """A VM that runs."""

    forwarded_port: str = ""  # decimal port on this host that leads to the agent
    left: bool = False  # set to have it run on when its block ends

    @abc.abstractmethod
    async def wait(self) -> Ending:
        """Return once the VM has ended by itself."""


class Backend(abc.ABC):
    """Starts VMs of one kind."""

    name: ClassVar[str]
    warning: ClassVar[str] = ""
    """Said at every start of the manager and of a VM, when the kind proves nothing."""

    survives: ClassVar[bool] = False
    """Whether its VMs can outlive the manager, and another one can :meth:`resume` them."""

    @abc.abstractmethod
    def start(
        self, vm_id: str, plan: VmPlan, folder: Path, console: Console
    ) -> AbstractAsyncContextManager[Vm]:
        """Have a VM run while the block runs; at its end nothing of it runs any more.

        Args:
            vm_id: UUID, goes to the agent.
            plan: What to start.
            folder: Private folder (0700, empty); the caller deletes it.
            console: Takes what the VM prints.

        Raises:
            PeerError: it did not start; the message says which part and why.
        """

    def resume(self, vm_id: str, folder: Path, console: Console) -> AbstractAsyncContextManager[Vm]:
        """Take over a VM that an earlier manager left running; else as :meth:`start`.

        Raises:
            PeerError: it has ended; the message says what is known of it.
        """
        raise InternalError(f"{self.name}: {vm_id} in {folder} for {console.path}")

    @abc.abstractmethod
    def clean(self, vm_id: str, folder: Path) -> None:
        """End what a killed manager left of a VM, except for the files in its folder."""

    def reference_values(self) -> bytes | None:
        """Return what its VMs measure, as JSON, if they are measured."""
        return None

    @abc.abstractmethod
    async def check(self) -> None:
        """Make sure that VMs of this kind can run here.

        Raises:
            PeerError: they cannot; the hint says what is missing.
        """

    @abc.abstractmethod
    def hardware(self) -> Hardware:
        """Return what its VMs are made of."""
