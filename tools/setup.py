# SPDX-License-Identifier: Apache-2.0
"""Make this checkout ready: Debian packages, ``.venv``, tools that Debian 12 lacks.

Runs on the system's Python with nothing but the standard library. A second run finds
its stamps and ends at once; two runs at the same time wait for each other.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "dev.txt"

# Package, a file that shows it is there (programs may be elsewhere on PATH), and its use.
PACKAGES = [
    ("ca-certificates", "etc/ssl/certs/ca-certificates.crt", "check the package servers"),
    ("curl", "usr/bin/curl", "talk to the KBS as the guide does"),
    ("openssl", "usr/bin/openssl", "make the admin's and the layers' keys"),
    ("openssh-client", "usr/bin/ssh", "look into debug VMs as the guide does"),
    ("jq", "usr/bin/jq", "look into image manifests as the guide does"),
    ("iproute2", "usr/bin/ss", "list listening ports as the guide does"),
    ("busybox-static", "bin/busybox", "make tiny images for the tests"),
    ("runc", "usr/sbin/runc", "run algorithms in a container"),
    ("umoci", "usr/bin/umoci", "unpack images for runc"),
    ("bubblewrap", "usr/bin/bwrap", "fence in the programs of the local backend"),
    ("buildah", "usr/bin/buildah", "build the example images"),
    ("mmdebstrap", "usr/bin/mmdebstrap", "fetch Debian 13's Skopeo, registry and Python"),
    ("qemu-system-x86", "usr/bin/qemu-system-x86_64", "run VMs"),
    ("ovmf", "usr/share/OVMF/OVMF_CODE_4M.fd", "boot VMs"),
    ("swtpm", "usr/bin/swtpm", "give VMs a TPM"),
    ("swtpm-tools", "usr/bin/swtpm_setup", "make TPMs that a CA has certified"),
    ("tpm2-tools", "usr/bin/tpm2_quote", "quote software TPMs in the tests"),
    ("softhsm2", "usr/bin/softhsm2-util", "keep the KBS's key in a software HSM in the tests"),
    ("uidmap", "usr/bin/newuidmap", "let mmdebstrap and buildah work without root"),
    (
        "debian-archive-keyring",
        "usr/share/keyrings/debian-archive-keyring.gpg",
        "check the signatures of Debian's packages",
    ),
]


class SetupError(Exception):
    """Set-up cannot go on; the text says what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Show what is being done, and how long it took."""
    say(f"{text} …")
    begin = time.monotonic()
    yield
    say(f"{text}: done in {time.monotonic() - begin:.1f} s")


def run(*argv: str | Path, log: Path | None = None) -> None:
    """Run a command whose output the user sees, unless it goes to a log.

    Raises:
        SetupError: it failed.
    """
    try:
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            status = subprocess.run(argv, cwd=ROOT, stdout=output, check=False).returncode
    except OSError as error:
        raise SetupError(f"cannot start {argv[0]}: {error.strerror}") from error
    if status:
        words = " ".join(str(word) for word in argv)
        where = f"\nits output is in {log}" if log else ""
        raise SetupError(f"this command failed with exit code {status}:\n  {words}{where}")


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold the set-up lock of this checkout."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work here, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- Debian packages -----------------------------------------------------------------


def missing_packages() -> list[tuple[str, str]]:
    """Return the packages to install and what each is for."""
    missing = []
    if importlib.util.find_spec("ensurepip") is None:
        major, minor = sys.version_info[:2]
        missing.append((f"python{major}.{minor}-venv", "make .venv"))
    for package, file, why in PACKAGES:
        if not any(Path("/").glob(file)) and shutil.which(Path(file).name) is None:
            missing.append((package, why))
    return missing


def install_packages() -> None:
    """Install the Debian packages that are missing, and only those.

    Raises:
        SetupError: not root and no sudo, no apt, or apt failed.
    """
    missing = missing_packages()
    if not missing:
        return
    names = [name for name, _ in missing]
    for name, why in missing:
        say(f"needs the Debian package {name}: to {why}")
    if shutil.which("apt-get") is None:
        raise SetupError(f"no apt-get here; install these by hand: {' '.join(names)}")
    become_root: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            command = f"apt-get install --no-install-recommends {' '.join(names)}"
            raise SetupError(f"not root and no sudo; run this as root:\n  {command}")
        become_root = ["sudo"]
    apt = [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    apt += ["-o", "DPkg::Lock::Timeout=600"]
    with step(f"installing {len(names)} Debian packages"):
        run(*apt, "update", log=BUILD / "apt-update.log")
        argv = [*apt, "install", "--yes", "--no-install-recommends", *names]
        run(*argv, log=BUILD / "apt-install.log")


# --- .venv ---------------------------------------------------------------------------


def wanted_venv() -> str:
    """Return the digest of everything that decides what is in ``.venv``."""
    digest = hashlib.sha256()
    for part in (sys.version, str(ROOT), sysconfig.get_platform()):
        digest.update(part.encode() + b"\0")
    for path in (LOCK, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def make_venv() -> None:
    """Make ``.venv`` with the locked dependencies and this checkout in it."""
    stamp = VENV / "setup.stamp"
    wanted = wanted_venv()
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    with step(f"making .venv for Python {'.'.join(map(str, sys.version_info[:3]))}"):
        same = VENV / "setup.python"
        if not PYTHON.exists() or not same.exists() or same.read_text() != sys.version:
            shutil.rmtree(VENV, ignore_errors=True)
            run(sys.executable, "-m", "venv", VENV)
            same.write_text(sys.version)
        pip = [str(PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        run(*pip, "--require-hashes", "--requirement", LOCK)
        run(*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    stamp.write_text(wanted)


def main() -> None:
    """Do what is missing."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever python3 is on PATH runs this
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"Python 3.11 or newer is needed, {sys.executable} is {found}; "
            "name another one: make setup PYTHON=/usr/bin/python3.11"
        )
    with only_one():
        install_packages()
        make_venv()
        run(PYTHON, "tools/install_tools.py")


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
