# SPDX-License-Identifier: Apache-2.0
"""Commands of cocos-cli about a computation before it runs."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from cocos._types import JsonObject
from cocos.cli import _common as common
from cocos.host.files import read_input
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES, Computation

app = common.make_app("Look at a computation before it runs.")


@app.command("digest")
def digest(
    manifest: Annotated[Path, typer.Argument(help="The manifest, as JSON.")],
    *,
    as_json: common.JsonFlag = False,
) -> None:
    """Print what a resource policy compares with to release a key to this computation only.

    These are the members of tpm.computations in the claims: what the machine measures
    before it asks for any key. "not pinned" means that the manifest has no hash for it: the
    registry chooses the image, the claims name the one that it chose, and a policy on
    manifest_digest alone accepts any. Keys come from each kbs; an empty one is the KBS that the
    machine was started with.
    """
    text = read_input(manifest, "the manifest", limit=MAX_MANIFEST_BYTES)
    computation = Computation.from_json(text)
    shown: JsonObject = {
        "manifest_digest": computation.digest().hex(),
        "algorithm_digest": computation.algorithm.hash.hex() or None,
        "dataset_digests": [each.hash.hex() or None for each in computation.datasets],
        "arguments_digest": computation.arguments_digest().hex(),
        "environment_digest": computation.environment_digest().hex(),
        "consumers_digest": computation.consumers_digest().hex(),
        "kbs": list(computation.kbs()),
    }

    def human() -> None:
        missing = defaultdict(lambda: "not pinned", kbs="of the init data")
        for name, value in shown.items():
            for each in value if isinstance(value, list) else [value]:
                common.stdout.print(f"{name:>18}: {each or missing[name]}", markup=False)

    common.emit(shown, human, as_json=as_json)
