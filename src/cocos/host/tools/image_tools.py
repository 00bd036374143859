# SPDX-License-Identifier: Apache-2.0
"""Debian 13's packages as files, and its image tools in a sandbox without network.

No script of any package runs: packages are unpacked, nothing more. The tools run through
bubblewrap with their own folder as root file system, so that neither this machine's
versions nor its configuration can show in their output.
"""

import os
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cocos.errors import IntegrityError, ProcessError, ToolMissingError
from cocos.host import process

FETCH_SECONDS = 1800.0
TOOL_SECONDS = 1800.0

WORK = "/work"
"""Where a tool sees the folder that it may write to."""

PACKAGE_LIST = "packages.txt"
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")


@dataclass(frozen=True, slots=True)
class Tools:
    """A root file system of Debian 13 with build tools."""

    folder: Path

    async def run(
        self,
        argv: Sequence[str],
        *,
        work: Path,
        env: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> process.Completed:
        """Run a program of the folder to its end.

        Args:
            argv: Program and arguments, with paths as seen inside.
            work: Appears as :data:`WORK`; the only place that can be written to.
            env: The whole environment, but for ``PATH``.
            root: Another root file system than the folder of the tools.

        Raises:
            ToolMissingError: bubblewrap is not installed.
            ProcessError: the program failed.
        """
        bwrap = process.find_tool("bwrap", hint="apt-get install bubblewrap")
        base = root or self.folder
        words = ["--unshare-all", "--die-with-parent", "--clearenv"]
        words += ["--ro-bind", str(base / "usr"), "/usr"]
        for name in ("bin", "lib", "lib64", "sbin"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        words += ["--dev", "/dev", "--bind", str(work), WORK]
        words += ["--tmpfs", "/tmp"]  # noqa: S108 - of the sandbox
        words += ["--chdir", WORK]
        for name, value in {"PATH": "/usr/sbin:/usr/bin", **(env or {})}.items():
            words += ["--setenv", name, value]
        return await process.run([bwrap, *words, "--", *argv], timeout=TOOL_SECONDS)


async def fetch_packages(
    names: Sequence[str], suite: str, archive: Path, *, expired: bool = False
) -> None:
    """Write a tar archive with the files of packages and all that they depend on.

    Debian's keyring vouches for every byte. The member ``packages.txt`` lists the packages.

    Args:
        names: Packages.
        suite: Release, such as ``trixie``.
        archive: Ends in ``.tar``; its folder takes temporary files, too.
        expired: Take a list of packages, too, that its signer meant to be replaced by now.
            Whoever serves it can then keep newer packages from us, but not invent any.

    Raises:
        ToolMissingError: mmdebstrap is not installed.
        ProcessError: they could not be fetched.
    """
    hint = "apt-get install mmdebstrap debian-archive-keyring"
    tool = process.find_tool("mmdebstrap", hint=hint)
    # As in host.toolbox: without root this needs neither user namespaces nor subordinate ids.
    mode = "root" if os.geteuid() == 0 else "chrootless"
    hook = f'ls "$1/var/cache/apt/archives" >"$1/{PACKAGE_LIST}"'
    options = ["--quiet", f"--mode={mode}", "--variant=extract", f"--extract-hook={hook}"]
    if expired:
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    await process.run(
        [tool, *options, f"--include={','.join(names)}", suite, archive],
        env={"TMPDIR": str(archive.parent)},
        timeout=FETCH_SECONDS,
    )


def package_list(archive: Path) -> str:
    """Return the list of packages of an archive of :func:`fetch_packages`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.removeprefix("./") == PACKAGE_LIST:
                file = tar.extractfile(member)
                return file.read().decode() if file else ""
    raise IntegrityError(f"{archive} has no list of packages")


def versions(package_list: str) -> dict[str, str]:
    """Return package → version of a list of packages."""
    debs = [name.removesuffix(".deb").split("_") for name in package_list.split() if "_" in name]
    return {deb[0]: deb[1].replace("%3a", ":") for deb in debs}


def folder_versions(folder: Path) -> dict[str, str]:
    """Return package → version of what has been unpacked into a folder, list and all."""
    return versions((folder / PACKAGE_LIST).read_text("utf-8"))


def unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the files of an archive of :func:`fetch_packages`, but no devices.

    Args:
        archive: Of packages that a keyring has vouched for.
        folder: An existing folder.
        wanted: Tells whether a path, without leading slash, is to be unpacked.
    """
    with tarfile.open(archive) as tar:
        # Links of packages may be absolute: they are meant for the finished file system.
        tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        for member in tar:
            name = member.name.removeprefix("./")
            if member.ischr() or member.isblk() or member.isfifo() or ".." in name.split("/"):
                continue
            if not wanted(f"{name}/" if member.isdir() else name):
                continue
            member.uid, member.gid = os.geteuid(), os.getegid()
            # No program in the image gets more rights than its caller has.
            member.mode = (member.mode & 0o1777) | (0o700 if member.isdir() else 0o600)
            tar.extract(member, folder)


async def fetch_wheels(requirements: Path, folder: Path, *, python: str) -> None:
    """Install locked wheels into a folder: their files, no scripts run.

    Args:
        requirements: Exact versions with hashes.
        folder: Becomes the folder of modules.
        python: Version of the guest's Python, such as ``3.13``.

    Raises:
        ToolMissingError: this Python has no pip.
        ProcessError: a wheel could not be fetched, or has another hash.
    """
    abi = f"cp{python.replace('.', '')}"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words += ["--no-compile", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    words += ["--implementation", "cp", "--python-version", python]
    for name in (abi, "abi3", "none"):
        words += ["--abi", name]
    for name in _PLATFORMS:
        words += ["--platform", name]
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    pip |= {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
    pip["TMPDIR"] = str(folder.parent)
    try:
        await process.run(
            [*words, "--target", str(folder), "-r", str(requirements)],
            env=pip,
            timeout=FETCH_SECONDS,
        )
    except ProcessError as error:
        if "No module named pip" in error.stderr:
            raise ToolMissingError(
                "this Python has no pip to fetch wheels with", hint="python -m ensurepip"
            ) from error
        raise


def unpack_new(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Make a folder and unpack into it; see :func:`unpack`."""
    folder.mkdir(mode=0o700)
    unpack(archive, folder, wanted)
