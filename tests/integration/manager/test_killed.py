# SPDX-License-Identifier: Apache-2.0
"""Whoever of a local VM's keepers is killed, and never started again: nothing can be read."""

import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from _cvms import Cvms
from _images import algorithm, tar, write_layout
from _local_vms import Host, command_lines, fences, groups, guest, managing
from _manager import eventually
from _owner import PUBLIC

from cocos.cvms.order import consumer_key
from cocos.host.images.skopeo import Skopeo
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Dataset, Source

pytestmark = pytest.mark.integration

SECRET = "5349 8812, patient with a name"
MARK = f"9876{secrets.randbelow(10**6):06}"  # of our own: tests run beside others
ENDLESS = f"busybox setsid busybox sleep {MARK} & trap '' TERM; busybox sleep {MARK}"
SECONDS = 40


@dataclass
class Work:
    """A VM in the middle of its computation."""

    host: Host
    vm_id: str

    @property
    def folder(self) -> Path:
        return self.host.state / "vms" / self.vm_id

    def readable(self) -> list[Path]:
        """Files in which the data can be found."""
        return [path for path in _below(self.folder) if path.is_file() and _holds(path)]

    def remains(self) -> list[str]:
        """What runs of the VM or can be found of it, but its record and its console."""
        found = [str(words) for _, words in command_lines() if self.vm_id.encode() in words]
        found += [str(words) for _, words in command_lines() if MARK.encode() in words]
        kept = {"vm.json", "console.log"}
        found += [str(path) for path in _below(self.folder) if path.name not in kept]
        return found + [str(path) for path in groups(self.vm_id)]


def _below(folder: Path) -> list[Path]:
    """What is in a folder, and below it, while others remove it."""
    return [Path(at) / name for at, *names in os.walk(folder) for each in names for name in each]


def _holds(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return SECRET.encode() in path.read_bytes()
    return False


@pytest.fixture
async def work(tool: Skopeo, registry: str, tmp_path: Path) -> AsyncIterator[Work]:
    """The program runs, the data lies in clear."""
    algorithm(tmp_path / "algo", ENDLESS, env=("PATH=/bin",))
    write_layout(tmp_path / "data", [tar({"data/people.csv": SECRET.encode()})])
    for name in ("algo", "data"):
        await tool.copy(f"oci:{tmp_path}/{name}", f"docker://{registry}/{name}:v1")
    one, two = (Source("oci-image", f"docker://{registry}/{name}:v1") for name in ("algo", "data"))
    order = Computation(
        f"c-{secrets.token_hex(4)}",
        Algorithm(one),
        datasets=(Dataset(two),),
        result_consumers=(consumer_key(PUBLIC),),
    )
    cvms = Cvms(order, tmp_path / "results")
    async with cvms.serving() as address, managing(tmp_path / "state") as host:
        made = Work(host, await host.create(cvms=address))
        await cvms.until(event="Running", status="InProgress")
        await eventually(lambda: any(MARK.encode() in words for _, words in command_lines()))
        assert made.readable()
        yield made


def manager(work: Work) -> list[int]:
    return [work.host.manager.pid]


def supervisors(work: Work) -> list[int]:
    """The outer processes of the VM's sandboxes."""
    inner = fences(work.vm_id)
    return [pid for pid in inner if not {pid} & set(_children_of(inner))]


def _children_of(parents: set[int]) -> list[int]:
    found = []
    for pid in parents:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found += [int(word) for word in text.split()]
    return found


def agent(work: Work) -> list[int]:
    return [guest(work.vm_id, "cocos-agent")]


def everything_but_the_caretaker(work: Work) -> list[int]:
    return [*manager(work), *fences(work.vm_id)]


@pytest.mark.parametrize(
    "whom",
    [manager, supervisors, agent, everything_but_the_caretaker],
    ids=lambda each: each.__name__,
)
async def test_nothing_can_be_read(work: Work, whom: Callable[[Work], list[int]]) -> None:
    for pid in whom(work):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        await eventually(lambda: not work.remains(), seconds=SECONDS)
    except TimeoutError:
        raise AssertionError(work.remains()) from None


async def test_a_killed_caretaker_is_not_missed(work: Work) -> None:
    caretakers = [
        pid
        for pid, words in command_lines()
        if b"caretaker" in words and work.vm_id.encode() in words
    ]
    assert caretakers
    for pid in caretakers:
        os.kill(pid, signal.SIGKILL)
    await work.host.agent("remove", work.vm_id)
    assert work.remains() == []
