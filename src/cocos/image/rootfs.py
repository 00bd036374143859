# SPDX-License-Identifier: Apache-2.0
"""The guest's root file system as a folder: packages' files, wheels, our own, nothing run."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cocos.image import spec

GUEST = Path(__file__).parent / "guest"
"""Our own files of the guest, under the paths that they have there."""

PACKAGE = Path(__file__).parent.parent
"""Our package, as it is installed here."""

_MOUNT_POINTS = ("cocos", "dev", "proc", "run", "sys", "tmp", "var", "root")
_CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_LAUNCHER = """#!/usr/bin/python3 -I
import sys
from {module} import main
sys.exit(main())
"""


def assemble(
    root: Path, *, debug: bool, unpack: Callable[[Path, Callable[[str], bool]], None], wheels: Path
) -> None:
    """Fill a folder with everything that the root file system holds.

    Args:
        root: An existing, empty folder.
        debug: Of a debug image.
        unpack: Unpacks the packages' files for which its second argument holds.
        wheels: Folder of modules.
    """
    unpack(root, lambda path: spec.stays(path, debug=debug))
    _add_python(root, wheels, spec.programs(debug=debug))
    _copy(GUEST / "root", root)
    if debug:
        _copy(GUEST / "debug", root)
    for name in _MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    _add_certificates(root)
    _enable(root, debug=debug)
    _finish_etc(root, debug=debug)
    _prune(root)


def set_modes(root: Path) -> None:
    """Give every file one of three modes: neither umask nor cache may show in an image."""
    for folder, _, names in os.walk(root):
        Path(folder).chmod(0o755)
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    (root / "etc" / "shadow").chmod(0o600)


def own_files() -> Iterator[tuple[str, Path]]:
    """Yield the files of our package that the guest gets, with their names in it."""
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE)
        if not path.is_file() or "__pycache__" in name.parts or name.suffix == ".pyi":
            continue
        top_level = len(name.parts) == 1 and name.suffix == ".py"
        if top_level or name.parts[0] in spec.OUR_PACKAGES or str(name) in spec.OUR_MODULES:
            yield str(name), path


def _add_python(root: Path, wheels: Path, programs: Mapping[str, str]) -> None:
    site = root / spec.SITE_PACKAGES
    shutil.copytree(wheels, site, ignore=shutil.ignore_patterns("bin", "__pycache__", "*.pyi"))
    for name in spec.UNUSED_WHEELS:
        _remove(site / name)
    for metadata in site.glob("*.dist-info"):
        # What pip writes about the installation itself is not the same everywhere.
        for path in metadata.iterdir():
            if path.name not in {"METADATA", "entry_points.txt"}:
                _remove(path)
    for name, path in own_files():
        target = site / "cocos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    launchers = {**programs, "cocos-initdata": "cocos.image.unpack"}
    folder = root / "usr" / "local" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in launchers.items():
        launcher = folder / name
        launcher.write_text(_LAUNCHER.format(module=module), "utf-8")
        launcher.chmod(0o755)


def _copy(source: Path, root: Path) -> None:
    for path in sorted(source.rglob("*")):
        target = root / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            _remove(target)
            shutil.copyfile(path, target)
            script = path.read_bytes()[:2] == b"#!"
            target.chmod(0o755 if script else 0o644)


def _add_certificates(root: Path) -> None:
    """Do what update-ca-certificates does: one file with all of Debian's CAs."""
    folder = root / "usr" / "share" / "ca-certificates" / "mozilla"
    texts = [path.read_text("ascii").strip() for path in sorted(folder.glob("*.crt"))]
    bundle = root / _CA_BUNDLE
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("\n".join([*texts, ""]), "ascii")
    shutil.rmtree(root / "usr" / "share" / "ca-certificates")
    # The copy of the same list that a wheel brings.
    copy = root / spec.SITE_PACKAGES / "certifi" / "cacert.pem"
    if copy.exists():
        copy.unlink()
        copy.symlink_to(f"/{_CA_BUNDLE}")


def _enable(root: Path, *, debug: bool) -> None:
    units = Path("/usr/lib/systemd/system")
    folder = root / "etc" / "systemd" / "system"
    for target, names in spec.enabled(debug=debug).items():
        wants = folder / f"{target}.wants"
        wants.mkdir(parents=True, exist_ok=True)
        for name in names:
            (wants / name).symlink_to(units / name)
    (folder / "default.target").symlink_to(units / "multi-user.target")


def _finish_etc(root: Path, *, debug: bool) -> None:
    variant = "debug" if debug else "production"
    release = root / "usr" / "lib" / "os-release"
    text = f"{release.read_text('utf-8')}IMAGE_ID=cocos\nVARIANT_ID={variant}\n"
    release.write_text(text, "utf-8")
    _link(root / "etc" / "os-release", "../usr/lib/os-release")
    _link(root / "etc" / "mtab", "../proc/self/mounts")
    if (root / "usr" / "bin" / "mawk").exists():
        _link(root / "usr" / "bin" / "awk", "mawk")


def _link(path: Path, target: str) -> None:
    _remove(path)
    path.symlink_to(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _prune(root: Path) -> None:
    """Remove folders that trimming has left empty, but for mount points and links."""
    kept = {root / name for name in _MOUNT_POINTS}
    for folder, _, _ in os.walk(root, topdown=False):
        path = Path(folder)
        if path != root and path not in kept and not any(path.iterdir()):
            path.rmdir()
