# SPDX-License-Identifier: Apache-2.0
"""Images to running containers: umoci unpacks, runc runs.

The caller verifies an image (:mod:`cocos.host.images.layout`) before it is unpacked. Whatever
happens, cancellation included, no container is left behind when :meth:`Runtime.run`
returns; what a killed agent left is removed by :meth:`Runtime.sweep` at the next start.
"""

import asyncio
import collections
import contextlib
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from cocos.errors import ConfigError, FormatError, ProcessError
from cocos.host import process, trees
from cocos.host.containers import cgroups, mount_points
from cocos.host.containers.container import Container, configuration
from cocos.host.files import write_atomic
from cocos.wire.json import encode

UNPACK_SECONDS = 3600.0

_TAIL_LINES = 20
_TAIL_LINE_BYTES = 500
_BUSY_GROUP = "Failed to remove cgroup"  # what runc logs, as an error
_CGROUPS = Path("/sys/fs/cgroup")
_KILLED = 128 + signal.SIGKILL
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

OnOutput = Callable[[str, bytes], None]
"""Gets ``stdout`` or ``stderr``, and the bytes just written there."""

_WITHOUT_RIGHTS = (
    "no program has root's rights here: what it runs and reads must be readable by its own user, "
    "each folder on the way, too: chmod -R a+rX in the Dockerfile"
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended.

    Attributes:
        exit_status: The program's exit code, or 128 + the signal that ended it.
        tail: The last lines of what it wrote, in the order of arrival.
        timed_out: It ran longer than its limit and was killed.
    """

    exit_status: int
    tail: str
    timed_out: bool = False


class _LogLine(msgspec.Struct):
    level: str = ""
    msg: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The programs that make containers, and where they keep their state.

    Attributes:
        runc: The container runtime.
        umoci: The unpacker.
        state: Private folder of ours.
        cgroups: Limits are held by control groups; else only by resource limits.
    """

    runc: Path
    umoci: Path
    state: Path
    cgroups: bool

    @classmethod
    def find(cls, state: Path, *, insecure_without_cgroups: bool = False) -> "Runtime":
        """Find the programs, and see whether control groups can be used.

        Args:
            state: Private folder for containers' state; made when absent.
            insecure_without_cgroups: Go on without them; the limits are then weaker.

        Raises:
            ToolMissingError: runc or umoci is not installed.
            ConfigError: no control groups, and nobody said that this is acceptable.
        """
        runc = process.find_tool("runc", hint="apt-get install runc")
        umoci = process.find_tool("umoci", hint="apt-get install umoci")
        usable = _cgroups_usable()
        if not usable:
            if not insecure_without_cgroups:
                raise ConfigError(
                    f"control groups below {_CGROUPS} cannot be written to: an algorithm's memory "
                    "and processes could not be limited",
                    hint="run the agent as root, or accept it: --insecure-without-cgroups",
                )
            _log.warning("runtime.insecure", reason="no control groups: weak limits only")
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(runc, umoci, state, usable)

    async def unpack(self, layout: Path, tag: str, rootfs: Path) -> None:
        """Unpack a verified image of an OCI layout into a new folder.

        Raises:
            FormatError: umoci does not accept it; its sentence is in the message.
            ProcessError: umoci was killed.
        """
        rootless = ["--rootless"] if os.geteuid() != 0 else []
        # A layer can have umoci remove the folder that the root is in: a whiteout of "..".
        around = rootfs.with_name(f".unpack-{secrets.token_hex(8)}")
        around.mkdir(mode=0o700)
        inner = around / rootfs.name
        words = ["raw", "unpack", *rootless, "--image", f"{layout}:{tag}", str(inner)]
        try:
            await process.run([self.umoci, *words], timeout=UNPACK_SECONDS)
            if inner.is_symlink() or not inner.is_dir():
                raise FormatError("the image's root is no folder")
            inner.rename(rootfs)
        except ProcessError as error:
            if error.exit_status < 0:  # that says nothing about the image
                ended = process.describe_status(error.exit_status)
                raise ProcessError(
                    f"the image was not unpacked: umoci was ended by {ended}",
                    exit_status=error.exit_status,
                ) from error
            raise FormatError(f"the image cannot be unpacked: {error.message}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(trees.discard, around))

    async def run(
        self, container: Container, logs: Path, *, on_output: OnOutput | None = None
    ) -> Outcome:
        """Run a container to its end.

        Args:
            container: What to run.
            logs: Folder that gets ``stdout.log`` and ``stderr.log``.
            on_output: Gets the output as it comes.

        Raises:
            IntegrityError: the image has no folder where something is to be mounted.
            FormatError: it names no sound working folder.
            ProcessError: the container could not be started.
        """
        if not _NAME.fullmatch(container.name):
            raise FormatError(f"{container.name[:100]!r} is no name for a container")
        bundle = self.state / "bundles" / container.name
        bundle.mkdir(parents=True, mode=0o700)
        try:
            rootless = os.geteuid() != 0
            where = mount_points.working_folder(container.rootfs, container.workdir)
            container = replace(container, workdir=where)
            settings = configuration(container, cgroups=self.cgroups, rootless=rootless)
            mount_points.prepare(settings)
            write_atomic(bundle / "config.json", encode(settings))
            return await self._run(container, bundle, logs, on_output)
        finally:
            await asyncio.shield(self._remove_groups(container.name))
            trees.discard(bundle)

    async def _run(
        self, container: Container, bundle: Path, logs: Path, on_output: OnOutput | None
    ) -> Outcome:
        log = bundle / "runc.log"
        words = [*self._words(), "--log", str(log), "--log-format", "json"]
        words += ["run", "--bundle", str(bundle), container.name]
        tail: collections.deque[bytes] = collections.deque(maxlen=_TAIL_LINES)
        limit = container.limits.output_bytes
        pipe = asyncio.subprocess.PIPE
        with (logs / "stdout.log").open("wb") as out, (logs / "stderr.log").open("wb") as err:
            ended = asyncio.Event()
            async with (
                self._gone_after(container.name, ended),
                process.spawn(words, stdout=pipe, stderr=pipe) as child,
                self._gone_after(container.name, ended),
            ):
                try:
                    async with asyncio.timeout(container.limits.seconds):
                        await asyncio.gather(
                            _pump("stdout", child.stdout, _Capture(out, limit, tail), on_output),
                            _pump("stderr", child.stderr, _Capture(err, limit, tail), on_output),
                        )
                        status = await child.wait()
                except TimeoutError:
                    return Outcome(_KILLED, _text(tail), timed_out=True)
                if status >= 0 and not (self._containers / container.name).exists():
                    ended.set()
        if status < 0:  # a program's own signal is 128 + its number
            raise ProcessError(
                f"runc was ended by {process.describe_status(status)}, and the program with it",
                exit_status=status,
            )
        failure = _failure(log)
        if failure is not None:
            raise ProcessError(
                f"the container could not be run: {failure}",
                exit_status=status,
                stderr=failure,
                hint=_WITHOUT_RIGHTS if "permission denied" in failure.lower() else None,
            )
        return Outcome(status, _text(tail))

    @contextlib.asynccontextmanager
    async def _gone_after(self, name: str, ended: asyncio.Event) -> AsyncIterator[None]:
        """Remove a container at the end of the block, unless runc has said that it ended.

        Used twice: before runc is told to stop, since it would wait for a program that
        ignores signals; and afterwards, for a container that it was just making.
        """
        try:
            yield
        finally:
            if not ended.is_set():
                await asyncio.shield(self._delete(name))

    async def sweep(self) -> None:
        """Kill and remove containers that an agent before us left behind."""
        for folder in (self._containers, self.state / "bundles"):
            names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
            for name in names:
                _log.warning("runtime.leftover", container=name)
                await self._delete(name)
                await self._remove_groups(name)
        bundles = self.state / "bundles"
        for bundle in bundles.iterdir() if bundles.is_dir() else []:
            trees.discard(bundle)

    async def _delete(self, name: str) -> None:
        """End a container, however far it has come, and remove all that there is of it."""
        result = await process.run([*self._words(), "delete", "--force", name], check=False)
        if result.exit_status != 0:
            reason = process.tail(result.stderr)
            _log.error("runtime.not_deleted", container=name, reason=reason)

    async def _remove_groups(self, name: str) -> None:
        # runc leaves them if it is killed, and if the kernel says that they are busy.
        if self.cgroups:
            await asyncio.to_thread(cgroups.remove, f"{cgroups.INSIDE}/{name}")

    @property
    def _containers(self) -> Path:
        return self.state / "runc"

    def _words(self) -> list[str | os.PathLike[str]]:
        # Without control groups runc must not insist on them, root or not.
        rootless = "auto" if self.cgroups else "true"
        return [self.runc, "--root", self._containers, "--rootless", rootless]


class _Capture:
    """Writes output to a file up to a limit, and remembers its last lines."""

    def __init__(self, file: BinaryIO, limit: int, tail: collections.deque[bytes]) -> None:
        self._file = file
        self._left = limit
        self._tail = tail
        self._line = b""

    def write(self, data: bytes) -> None:
        if self._left > 0:
            self._file.write(data[: self._left])
            self._left -= len(data)
            if self._left <= 0:
                self._file.write(b"\n[the output was cut off here]\n")
        *lines, rest = (self._line + data).split(b"\n")
        self._tail.extend(line[:_TAIL_LINE_BYTES] for line in lines if line.strip())
        self._line = rest[:_TAIL_LINE_BYTES]

    def close(self) -> None:
        if self._line.strip():
            self._tail.append(self._line)


async def _pump(
    name: str, pipe: asyncio.StreamReader | None, capture: _Capture, on_output: OnOutput | None
) -> None:
    while pipe is not None and (chunk := await pipe.read(2**16)):
        capture.write(chunk)
        if on_output is not None:
            on_output(name, chunk)
    capture.close()


def _text(tail: collections.deque[bytes]) -> str:
    return "\n".join(line.decode(errors="replace").rstrip() for line in tail)


def _failure(log: Path) -> str | None:
    """What runc itself complained about; its exit code is that of the program otherwise."""
    try:
        lines = log.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):
            entry = msgspec.json.decode(line, type=_LogLine)
            # That a group is still busy for a moment is no failure of what ran in it.
            if entry.level in {"error", "fatal"} and entry.msg != _BUSY_GROUP:
                return entry.msg
    return None


def _cgroups_usable() -> bool:
    """Whether groups of ours can be made where memory and processes are limited."""
    unified = (_CGROUPS / "cgroup.controllers").exists()
    folders = [_CGROUPS] if unified else [_CGROUPS / "memory", _CGROUPS / "pids"]
    try:
        for folder in folders:
            if not folder.is_dir():
                return False
            (folder / "cocos").mkdir(exist_ok=True)
            if not os.access(folder / "cocos", os.W_OK):
                return False
    except OSError:
        return False
    return True
