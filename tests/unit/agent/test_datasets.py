# SPDX-License-Identifier: Apache-2.0
"""Where datasets lie, and what is no dataset."""

import os
from pathlib import Path

import pytest

from cocos.agent.datasets import Unpacked, lay_out
from cocos.errors import FormatError


def image(tmp_path: Path, name: str, *files: str) -> Path:
    root = tmp_path / "images" / name
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(f"{name}:{file}")
        (root / file).chmod(0o4777)
    return root


def place(tmp_path: Path, *images: Unpacked) -> tuple[tuple[str, ...], Path]:
    target = tmp_path / "datasets"
    target.mkdir()
    return lay_out(images, target), target


def test_one_file_by_its_own_name(tmp_path: Path) -> None:
    paths, target = place(tmp_path, Unpacked(image(tmp_path, "iris", "data/iris.csv")))
    assert paths == ("/cocos/datasets/iris.csv",)
    assert (target / "iris.csv").read_text() == "iris:data/iris.csv"
    assert (target / "iris.csv").stat().st_mode & 0o7777 == 0o444
    assert target.stat().st_mode & 0o7777 == 0o555


def test_one_file_by_the_manifests_name(tmp_path: Path) -> None:
    paths, _ = place(tmp_path, Unpacked(image(tmp_path, "iris", "iris.csv"), "dataset_0.csv"))
    assert paths == ("/cocos/datasets/dataset_0.csv",)


def test_several_files_keep_their_layout(tmp_path: Path) -> None:
    many = image(tmp_path, "many", "a/x.csv", "b/y.csv")
    paths, target = place(tmp_path, Unpacked(image(tmp_path, "one", "o.csv")), Unpacked(many))
    assert paths == ("/cocos/datasets/o.csv", "/cocos/datasets/dataset_1")
    assert (target / "dataset_1/a/x.csv").read_text() == "many:a/x.csv"


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    images = [Unpacked(image(tmp_path, name, "data.csv")) for name in ("a", "b")]
    paths, target = place(tmp_path, *images)
    assert paths == (
        "/cocos/datasets/dataset_0/data.csv",
        "/cocos/datasets/dataset_1/data.csv",
    )
    assert (target / "dataset_1/data.csv").read_text() == "b:data.csv"


def test_names_that_cannot_be_told_apart(tmp_path: Path) -> None:
    images = [Unpacked(image(tmp_path, name, "data.csv")) for name in ("a", "b")]
    third = Unpacked(image(tmp_path, "c", "dataset_0"))
    with pytest.raises(FormatError, match="two datasets want to be /cocos/datasets/dataset_0"):
        place(tmp_path, *images, third)


def test_the_manifests_name_holds(tmp_path: Path) -> None:
    one = Unpacked(image(tmp_path, "a", "data.csv"))
    two = Unpacked(image(tmp_path, "b", "other.csv"), "data.csv")
    paths, _ = place(tmp_path, one, two)
    assert paths == ("/cocos/datasets/dataset_0/data.csv", "/cocos/datasets/data.csv")


def test_a_dataset_without_files(tmp_path: Path) -> None:
    (tmp_path / "images/empty/folder").mkdir(parents=True)
    with pytest.raises(FormatError, match=r"datasets\[0\] holds no file"):
        place(tmp_path, Unpacked(tmp_path / "images/empty"))


@pytest.mark.parametrize("kind", ["link", "folder-link", "pipe"])
def test_only_files(tmp_path: Path, kind: str) -> None:
    root = image(tmp_path, "a", "data.csv")
    if kind == "pipe":
        os.mkfifo(root / kind)
    else:
        (root / kind).symlink_to("/etc/passwd" if kind == "link" else "/etc")
    with pytest.raises(FormatError, match=f"holds /{kind}, which is neither"):
        place(tmp_path, Unpacked(root))
