# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
from _boot import ALGORITHM, DATASET, manifest
from typer.testing import CliRunner

from cocos.cli import _common
from cocos.cli.owner import computation as cocos_computation
from cocos.errors import FormatError, NotFoundError
from cocos.wire.manifest.computation import Computation

# Not cocos-cli's own application: that one sets up logs for the whole process.
app = _common.make_app("computation")
app.add_typer(cocos_computation.app, name="computation")


def digest(file: Path, *flags: str) -> str:
    result = CliRunner().invoke(app, ["computation", "digest", str(file), *flags])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_what_policies_compare_with(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    text = json.dumps(manifest())
    file.write_text(text)
    computation = Computation.from_json(text.encode())
    shown = json.loads(digest(file, "--json"))
    # The same as what is measured, and so what the claims show.
    assert shown == computation.event(ALGORITHM, [DATASET], ()).claims()
    assert [line.split(": ")[1] for line in digest(file).splitlines()] == [
        shown["manifest_digest"],
        ALGORITHM,
        DATASET,
        shown["arguments_digest"],
        shown["environment_digest"],
        shown["consumers_digest"],
        "of the init data",
    ]


def test_what_is_not_pinned_is_said(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps(manifest(dataset="")))
    assert json.loads(digest(file, "--json"))["dataset_digests"] == [None]
    assert "dataset_digests: not pinned" in digest(file)


def test_no_manifest(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    with pytest.raises(NotFoundError):
        digest(file)
    file.write_text("{}")
    with pytest.raises(FormatError):
        digest(file)
