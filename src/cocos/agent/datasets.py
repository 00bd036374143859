# SPDX-License-Identifier: Apache-2.0
"""Where datasets lie for the algorithm: below ``/cocos/datasets``, in the manifest's order.

- An image with one file gives that file, by its own name or the manifest's ``filename``.
- An image with more gives a folder with its layout, named ``filename`` or ``dataset_N``.
- Files of one name, if the manifest does not name them, each go into a folder
  ``dataset_N`` of their own.

The algorithm gets these paths, one per dataset, as its arguments.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cocos.errors import FormatError
from cocos.host import trees

INSIDE = PurePosixPath("/cocos/datasets")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A dataset's image, unpacked.

    Attributes:
        root: Its root folder.
        filename: What the manifest calls it, or empty.
    """

    root: Path
    filename: str = ""


def lay_out(datasets: Sequence[Unpacked], target: Path) -> tuple[str, ...]:
    """Move the files of datasets to where an algorithm finds them, readable only.

    Args:
        datasets: In the manifest's order, on the file system of ``target``.
        target: Empty folder that is shown as ``/cocos/datasets``.

    Returns:
        The path of each dataset as the algorithm sees it.

    Raises:
        FormatError: a dataset without a file, with something else than files and folders,
            or two that want the same name.
    """
    listed = [_files(dataset.root, index) for index, dataset in enumerate(datasets)]
    wanted = [
        _wanted(dataset, files, index)
        for index, (dataset, files) in enumerate(zip(datasets, listed, strict=True))
    ]
    places = [
        # The manifest's name holds whatever the others are called.
        PurePosixPath(f"dataset_{index}", name)
        if wanted.count(name) > 1 and not dataset.filename
        else PurePosixPath(name)
        for index, (dataset, name) in enumerate(zip(datasets, wanted, strict=True))
    ]
    tops = [place.parts[0] for place in places]
    for top in sorted({each for each in tops if tops.count(each) > 1}):
        raise FormatError(f"two datasets want to be {INSIDE / top}", hint="give them a filename")
    for dataset, files, place in zip(datasets, listed, places, strict=True):
        if len(files) == 1:
            _move(files[0], target / place)
        else:
            for file in files:
                _move(file, target / place / file.relative_to(dataset.root))
    _seal(target)
    return tuple(str(INSIDE / place) for place in places)


def _wanted(dataset: Unpacked, files: list[Path], index: int) -> str:
    if dataset.filename:
        return dataset.filename
    return files[0].name if len(files) == 1 else f"dataset_{index}"


def _files(root: Path, index: int) -> list[Path]:
    found = []
    for name, item in trees.walk(root):
        mode = item.stat(follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            found.append(Path(item.path))
        elif not stat.S_ISDIR(mode):
            raise FormatError(
                f"datasets[{index}] holds /{name}, which is neither file nor folder",
                hint="make the dataset's image FROM scratch, of files only",
            )
    if not found:
        raise FormatError(f"datasets[{index}] holds no file")
    return sorted(found)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    target.chmod(0o444)


def _seal(folder: Path) -> None:
    pending = [folder]
    while pending:
        path = pending.pop()
        with os.scandir(path) as items:
            pending += [Path(item.path) for item in items if item.is_dir(follow_symlinks=False)]
        path.chmod(0o555)
