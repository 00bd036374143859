# SPDX-License-Identifier: Apache-2.0
"""Trees that programs of strangers could leave."""

import os
from pathlib import Path


def dig(folder: Path, depth: int, name: str = "d", *, mode: int = 0o700) -> None:
    """Make nested folders with a file in the innermost, whose path no system call takes."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    passed = []
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        if mode != 0o700:
            os.fchmod(at, mode)
        passed.append(at)
        at = below
        if len(passed) > 50:
            os.close(passed.pop(0))
    os.close(os.open("data.csv", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=at))
    for each in (*passed, at):
        os.close(each)
