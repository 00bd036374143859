# SPDX-License-Identifier: Apache-2.0
"""The work of one computation, step by step, in a private folder that ends with it.

resolve → measure → fetch the algorithm → fetch the datasets → unpack → run → collect. Each step
names its place before it begins, so that a failure says where it happened.
"""

import asyncio
import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cocos._patience import Patience
from cocos.agent import datasets
from cocos.agent.binding import Images
from cocos.agent.config import AgentSettings
from cocos.agent.fetch import TAG, Fetcher, Resolved
from cocos.agent.kept import Note
from cocos.agent.report import Level, Lines, Narrator, Place
from cocos.errors import ComputationError, FormatError
from cocos.host import archive, trees
from cocos.host.containers.container import Container, Mount
from cocos.host.containers.runtime import Outcome, Runtime
from cocos.host.images.image_config import find_user, program
from cocos.host.images.layout import VerifiedImage
from cocos.host.process import describe_status
from cocos.wire import json
from cocos.wire.manifest.computation import Computation

RESULTS = "/cocos/results"
NOTE = "computation.json"
"""In a computation's folder: what a later agent says of it if this one is killed."""

_LOGS = ("stdout.log", "stderr.log")
_SIGKILL_STATUS = 128 + 9


@dataclass(frozen=True, slots=True)
class Bench:
    """A computation's folder and tools.

    Attributes:
        images: As they were measured.
        folder: Private; removed with everything in it when the computation ends.
        name: Of the container.
        patience: Of the whole computation, with registries and KBSs.
    """

    computation: Computation
    images: Images
    folder: Path
    name: str
    fetcher: Fetcher
    runtime: Runtime
    settings: AgentSettings
    narrator: Narrator
    patience: Patience

    async def fetch_algorithm(self) -> VerifiedImage:
        """Fetch and verify the algorithm's image."""
        return await self._fetch("algorithm", self.images.algorithm, "algorithm")

    async def fetch_datasets(self) -> None:
        """Fetch and verify the datasets' images, one after the other."""
        for index, resolved in enumerate(self.images.datasets):
            await self._fetch(f"datasets[{index}]", resolved, f"{index}")

    async def _fetch(self, resource: str, resolved: Resolved, name: str) -> VerifiedImage:
        source = resolved.source
        self.narrator.at(Place("fetch", resource, source.url))
        self.narrator.say(Level.INFO, f"fetching {resource}: {source.url}")

        def on_percent(percent: int) -> None:
            self.narrator.say(Level.INFO, f"fetching {resource}: {percent} %")

        async def fetched() -> VerifiedImage:
            folder = self._layouts / name
            # Of a try that broke off.
            await asyncio.to_thread(trees.remove_tree, folder)
            return await self.fetcher.fetch(resolved, folder, on_percent)

        image = await self.patience.ask(fetched)
        how = "decrypted and verified" if source.encrypted else "verified"
        self.narrator.say(Level.INFO, f"{resource}: every layer {how} ({len(image.layers)})")
        return image

    async def unpack(self, image: VerifiedImage) -> Container:
        """Unpack everything and say what is to be run on what."""
        for index, dataset in enumerate(self.computation.datasets):
            self.narrator.at(Place("unpack", f"datasets[{index}]", dataset.source.url))
            root = self.folder / "unpacked" / f"{index}"
            await self._unpack(f"{index}", root)
        self.narrator.at(Place("unpack", "datasets"))
        paths = await asyncio.to_thread(self._lay_out_datasets)
        self.narrator.at(Place("unpack", "algorithm", self.computation.algorithm.source.url))
        rootfs = self.folder / "rootfs"
        await self._unpack("algorithm", rootfs)
        config = image.config.config
        words = program(config, self.computation.algorithm.args or paths)
        user = find_user(rootfs, config.user if config else "")
        results = self.folder / "results"
        results.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(results, user.uid, user.gid)
        return Container(
            name=self.name,
            rootfs=rootfs,
            argv=words,
            env=tuple(config.env or ()) if config else (),
            workdir=(config.working_dir if config else "") or "/",
            user=user,
            mounts=(
                Mount(self.folder / "datasets", str(datasets.INSIDE)),
                Mount(results, RESULTS, read_only=False),
            ),
            limits=self.settings.limits(),
        )

    async def _unpack(self, name: str, root: Path) -> None:
        layout = self._layouts / name
        root.parent.mkdir(parents=True, exist_ok=True)
        await self.runtime.unpack(layout, TAG, root)
        # In a CVM the disk is memory; the layers are not needed any more.
        await asyncio.to_thread(trees.remove_tree, layout)

    def _lay_out_datasets(self) -> tuple[str, ...]:
        target = self.folder / "datasets"
        target.mkdir()
        sets = self.computation.datasets
        unpacked = [
            datasets.Unpacked(self.folder / "unpacked" / f"{index}", each.filename)
            for index, each in enumerate(sets)
        ]
        return datasets.lay_out(unpacked, target) if unpacked else ()

    async def run(self, container: Container) -> None:
        """Run the algorithm to its end.

        Its output goes to the log only if the manifest asks for level debug: who carries
        the log may not see the data.

        Raises:
            ComputationError: it failed; carries the exit code and the last lines.
        """
        self.narrator.at(
            Place("run", "algorithm", self.computation.algorithm.source.url),
        )
        logs = self.folder / "logs"
        logs.mkdir(mode=0o700)
        debug = self.computation.agent_config.log_level.lower() == "debug"
        lines = {"stdout": Lines(), "stderr": Lines()}
        levels = {"stdout": Level.DEBUG, "stderr": Level.ERROR}

        def on_output(stream: str, data: bytes) -> None:
            for line in lines[stream].feed(data):
                self.narrator.say(levels[stream], line)

        outcome = await self.runtime.run(container, logs, on_output=on_output if debug else None)
        if debug:
            for stream, rest in lines.items():
                for line in rest.end():
                    self.narrator.say(levels[stream], line)
        if outcome.exit_status != 0 or outcome.timed_out:
            message = _describe(outcome, container)
            raise ComputationError(message, exit_status=outcome.exit_status, tail=outcome.tail)

    async def collect(self) -> Path:
        """Return the zip of the results and of what the algorithm printed."""
        self.narrator.at(Place("collect"))
        return await asyncio.to_thread(self._collect)

    def _collect(self) -> Path:
        entries = archive.files_below(self.folder / "results")
        taken = {each.name for each in entries}
        for index, each in enumerate(entries):
            if each.name in _LOGS:  # what the algorithm calls like a log of ours is kept beside it
                name = each.name
                while name in taken or name in _LOGS:
                    name += ".result"
                taken.add(name)
                entries[index] = archive.Entry(name, each.path)
        entries += [archive.Entry(name, self.folder / "logs" / name) for name in _LOGS]
        path = self.folder / "results.zip"
        with path.open("xb") as file:
            limit = self.settings.result_mib * 2**20
            ordered = sorted(entries, key=lambda each: os.fsencode(each.name))
            archive.write_zip(ordered, file.write, limit=limit)
        return path

    @property
    def _layouts(self) -> Path:
        return self.folder / "images"


def interrupted(work: Path) -> list[Note]:
    """Return what an agent before us was at work on when it ended, from its notes."""
    found = []
    for path in sorted((work / "computations").glob(f"*/{NOTE}")):
        with contextlib.suppress(OSError, FormatError):  # killed while it wrote
            note: Note = json.decode(path.read_bytes(), Note, "a computation's note")
            found.append(note)
    return found


def make_bench(
    computation: Computation,
    images: Images,
    *,
    work: Path,
    fetcher: Fetcher,
    runtime: Runtime,
    settings: AgentSettings,
    narrator: Narrator,
    patience: Patience,
) -> Bench:
    """Make a computation's private folder below ``work``."""
    token = secrets.token_hex(4)
    name = f"{computation.id[:64]}-{token}"
    folder = work / "computations" / name
    folder.mkdir(mode=0o700, parents=True)
    note = Note(computation.id, computation.digest().hex())
    (folder / NOTE).write_bytes(json.encode(note))
    return Bench(computation, images, folder, name, fetcher, runtime, settings, narrator, patience)


def _describe(outcome: Outcome, container: Container) -> str:
    limits = container.limits
    if outcome.timed_out:
        return f"the algorithm did not end within {limits.seconds:g} s and was killed"
    status = outcome.exit_status
    if status == _SIGKILL_STATUS:
        return (
            "the algorithm was ended by signal SIGKILL: somebody ended it, or it wanted more than "
            f"its {limits.memory_bytes // 2**20} MiB of memory"
        )
    words = describe_status(status if status <= 128 else 128 - status)  # noqa: PLR2004 - shells' rule
    return f"the algorithm failed with {words}"
