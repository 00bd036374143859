# SPDX-License-Identifier: Apache-2.0
"""Child processes: one way to run a program to its end, one way to have it beside us.

A child gets an argument list, never a shell; no standard input unless asked; an
environment built up from a short list; a process group of its own. However the caller
leaves (result, error, cancellation), the group has been told to stop (SIGTERM, then
SIGKILL after :data:`GRACE_SECONDS`) and the child has been reaped.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from cocos.errors import PeerError, ProcessError, StorageError, ToolMissingError, UnreachableError
from cocos.host.disk import says_storage

GRACE_SECONDS = 5.0
TAIL_BYTES = 16 * 1024  # of a child's standard error, for messages

_INHERITED = (
    *("HOME", "LANG", "LOGNAME", "PATH", "TERM", "TMPDIR", "TZ", "USER", "XDG_RUNTIME_DIR"),
    # Without them nothing outside is reached from many an office.
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)

_log = structlog.get_logger(__name__)


class LineSink(Protocol):
    """Takes one line of output, without its newline."""

    def __call__(self, line: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished child left: exit code (negative: signal) and its output."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def environment(extra: Mapping[str, str] | None = None, *, inherit: bool = True) -> dict[str, str]:
    """Return the environment of a child: a few inherited names, unless not, and ``extra``."""
    names = _INHERITED if inherit else ()
    clean = {name: os.environ[name] for name in names if name in os.environ}
    return {**clean, "LC_ALL": "C.UTF-8", **(extra or {})}


def find_tool(name: str, *, hint: str) -> Path:
    """Return the absolute path of a program on PATH or in the system's sbin folders.

    Raises:
        ToolMissingError: not found; ``hint`` says how to get it.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ToolMissingError(f"{name} is not installed", hint=hint)
    return Path(found)


@contextlib.asynccontextmanager
async def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    inherit: bool = True,
    cwd: Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
    limit: int = 2**16,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have a child run while the block runs; stop and reap it at the end.

    Args:
        argv: Program and arguments.
        env: Added to :func:`environment`.
        inherit: As there.
        cwd: Working directory.
        stdin: As in ``subprocess``; the null device by default.
        stdout: As in ``subprocess``; inherited by default.
        stderr: As in ``subprocess``; inherited by default.
        pass_fds: Descriptors that the child keeps.
        limit: Longest line, in bytes, that readers of its pipes accept.

    Raises:
        ToolMissingError: there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    _log.debug("process.start", argv0=words[0])
    making = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *words,
            env=environment(env, inherit=inherit),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            limit=limit,
        )
    )
    try:
        process = await asyncio.shield(making)
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissingError(f"cannot start {words[0]}: {error.strerror}") from error
    except asyncio.CancelledError:
        # asyncio itself would kill the leader alone, and wait for those who hold its pipes.
        await asyncio.shield(_stop_once_made(making))
        raise
    try:
        yield process
    finally:
        # Shielded: a second cancellation must not leave the child behind.
        await asyncio.shield(_stop(process))


async def _stop_once_made(making: asyncio.Future[asyncio.subprocess.Process]) -> None:
    with contextlib.suppress(OSError):  # there is no such program
        await _stop(await making)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    # The group may outlive its leader.
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - part of what the caller asks for
    check: bool = True,
    on_stdout: LineSink | None = None,
    on_stderr: LineSink | None = None,
) -> Completed:
    """Run a program to its end.

    Args:
        argv: Program and arguments; secrets do not belong here, others can read them.
        env: Added to :func:`environment`.
        cwd: Working directory.
        stdin: Bytes for its standard input.
        timeout: Seconds after which it is stopped.
        check: Raise when the exit code is not zero.
        on_stdout: Gets each line as it comes; then ``Completed.stdout`` holds only the tail.
        on_stderr: The same for standard error.

    Raises:
        ToolMissingError: there is no such program.
        ProcessError: non-zero exit code, with ``check``.
        StorageError: the same, and its last words are of a disk that is full or broken.
        UnreachableError: it ran longer than ``timeout``.
    """
    pipe = asyncio.subprocess.PIPE
    name = Path(os.fspath(argv[0])).name
    try:
        async with (
            asyncio.timeout(timeout),
            spawn(
                argv,
                env=env,
                cwd=cwd,
                stdin=None if stdin is None else pipe,
                stdout=pipe,
                stderr=pipe,
                limit=2**20,
            ) as process,
        ):
            stdout, stderr, _ = await asyncio.gather(
                _drain(process.stdout, on_stdout),
                _drain(process.stderr, on_stderr),
                _feed(process.stdin, stdin),
            )
            status = await process.wait()
    except TimeoutError as error:
        raise UnreachableError(f"{name} did not finish within {timeout:g} s") from error
    if check and status != 0:
        raise _failure(name, status, stderr)
    return Completed(status, stdout, stderr)


def _failure(name: str, status: int, stderr: bytes) -> PeerError:
    words = tail(stderr)
    if says_storage(words):
        return StorageError(f"{name}: {words}")
    return ProcessError(
        f"{name} failed with {describe_status(status)}: {words or 'no output'}",
        exit_status=status,
        stderr=stderr.decode(errors="replace"),
    )


def describe_status(status: int) -> str:
    """Say an exit status in words: "exit code 3", "signal SIGKILL"."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def tail(output: bytes, lines: int = 3) -> str:
    """Return the last non-empty lines of a child's output on one line."""
    text = output.decode(errors="replace").splitlines()
    return " | ".join([line.strip() for line in text if line.strip()][-lines:])


async def _feed(pipe: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if pipe is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(data or b"")
        await pipe.drain()
    pipe.close()


async def _drain(pipe: asyncio.StreamReader | None, sink: Callable[[bytes], None] | None) -> bytes:
    if pipe is None:
        return b""
    if sink is None:
        return await pipe.read()
    kept = b""
    pending = b""
    # Not readline: a child may write a line longer than any limit.
    while chunk := await pipe.read(2**16):
        kept = (kept + chunk)[-TAIL_BYTES:]
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            sink(line)
        if len(pending) > TAIL_BYTES:
            sink(pending)
            pending = b""
    if pending:
        sink(pending)
    return kept
