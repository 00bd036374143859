# SPDX-License-Identifier: Apache-2.0
"""Make the base image of Python algorithms, without any image registry, and print it.

Debian 13's Python by mmdebstrap, pandas and scikit-learn as wheels by their locked
hashes, put together by buildah. The image stays in the user's cache, named by the digest
of all that went into it; it has no shell and no package manager. Modules are compiled: their
folders are read-only when an algorithm runs, and in an emulated VM compiling takes minutes.
"""

import asyncio
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cocos.cli._common import configure_logs, run_async, stderr
from cocos.errors import CocosError
from cocos.host.files import cache_folder, write_atomic
from cocos.host.process import find_tool, run

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lin-reg.txt"
SUITE = "trixie"
PYTHON_VERSION = "3.13"  # of Debian 13
DEBIAN_PACKAGES = "base-files,python3,python-is-python3,libstdc++6"
EXCLUDED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
CONTAINERFILE = """\
FROM scratch
ADD root.tar /
COPY site-packages /usr/lib/python3/dist-packages/
RUN ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", \
     "/usr/lib/python3.13", "/usr/lib/python3/dist-packages"]
ENV PYTHONUNBUFFERED=1
CMD ["python"]
"""
HINT = "make setup installs it"


def recipe() -> str:
    """Return the digest of everything that decides what the image holds."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + LOCK.read_bytes())
    digest.update(platform.machine().encode())
    return digest.hexdigest()[:16]


def buildah_environment() -> dict[str, str]:
    """Return variables that give buildah a store of its own in the user's cache.

    ``vfs`` and ``chroot`` need neither an overlay file system nor namespaces of their own,
    so that this also works inside containers.
    """
    store = cache_folder("buildah")
    config = store / "storage.conf"
    text = f'[storage]\ndriver = "vfs"\ngraphroot = "{store}/graph"\nrunroot = "{store}/run"\n'
    write_atomic(config, text.encode())
    return {
        "CONTAINERS_STORAGE_CONF": str(config),
        "STORAGE_DRIVER": "vfs",
        "BUILDAH_ISOLATION": "chroot",
    }


async def debian_tree(target: Path) -> None:
    """Write Debian's Python as a tar file, unpacked only: no script of a package runs."""
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    mmdebstrap = str(find_tool("mmdebstrap", hint=HINT))
    # Without root, chrootless needs no namespaces: nothing of the tree is run.
    mode = "root" if os.geteuid() == 0 else "chrootless"
    argv = [
        mmdebstrap,
        "--quiet",
        f"--mode={mode}",
        "--variant=extract",
        f"--include={DEBIAN_PACKAGES}",
        *excluded,
    ]
    # The whole environment: this machine's proxy and certificates.
    await run([*argv, SUITE, str(target)], env={**os.environ, "SOURCE_DATE_EPOCH": "0"})


async def wheels(target: Path) -> None:
    """Unpack the locked wheels for Debian 13's Python, without their test suites."""
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    argv += ["--no-deps", "--only-binary=:all:", "--no-compile", "--require-hashes"]
    # Ours may be older than the image's: pip would compare with the wrong one.
    argv += ["--python-version", PYTHON_VERSION, "--ignore-requires-python"]
    await run([*argv, "--requirement", str(LOCK), "--target", str(target)], env=os.environ)
    await asyncio.to_thread(trim, target)


def trim(site_packages: Path) -> None:
    """Remove what no algorithm needs: commands, and a fifth of the size that tests take."""
    shutil.rmtree(site_packages / "bin", ignore_errors=True)
    for tests in sorted(site_packages.rglob("tests")):
        shutil.rmtree(tests, ignore_errors=True)


async def build(image: Path) -> None:
    """Fetch the two halves at the same time and put them together."""
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".new-") as new:
        folder = Path(new)
        async with asyncio.TaskGroup() as both:
            both.create_task(debian_tree(folder / "root.tar"))
            both.create_task(wheels(folder / "site-packages"))
        (folder / "Containerfile").write_text(CONTAINERFILE)
        buildah, env = find_tool("buildah", hint=HINT), buildah_environment()
        name = f"localhost/cocos-python:{image.name}"
        await run(
            [buildah, "build", "--quiet", "--network=none", "--timestamp=0", "--tag", name, folder],
            env=env,
        )
        await run([buildah, "push", "--quiet", name, f"oci:{folder}/layout:latest"], env=env)
        (folder / "layout").rename(image)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep two builds at the same time apart."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def base_image() -> str:
    """Return the image as Skopeo names it, ``oci:PATH:latest``; make it if need be.

    Raises:
        CocosError: a tool is missing or failed.
    """
    folder = cache_folder("images")
    image = folder / f"python-{recipe()}"
    with locked(folder):
        if not image.exists():
            try:
                await build(image)
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
    return f"oci:{image}:latest"


if __name__ == "__main__":
    configure_logs("warning")
    try:
        print(run_async(base_image()))
    except CocosError as error:
        stderr.print(f"base-image: {error}", markup=False)
        sys.exit(error.exit_code)
