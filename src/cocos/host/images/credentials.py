# SPDX-License-Identifier: Apache-2.0
"""Where Skopeo finds credentials for registries, and why it may find none."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cocos.errors import AuthenticationError, ConfigError, FormatError, NotFoundError
from cocos.host.files import read_file

_LIMIT = 2**20


def check(authfile: Path) -> None:
    """Check that a file of credentials is one; Skopeo takes a missing one for an empty one.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is not JSON.
    """
    if not authfile.exists():
        raise NotFoundError(
            f"there is no {authfile}", hint=f"skopeo login --authfile {authfile} REGISTRY"
        )
    _read(authfile)


@contextlib.contextmanager
def explained(authfile: Path | None) -> Iterator[None]:
    """Have a refusal say so if the credentials are where Skopeo does not look."""
    try:
        yield
    except AuthenticationError as error:
        for file in [authfile] if authfile else _files():
            with contextlib.suppress(FormatError, ConfigError):
                store = _read(file).get("credsStore") if file.exists() else None
                if store:
                    error.hint = (
                        f"{file} leaves passwords to the credential store {store!r}, which Skopeo "
                        "does not ask: skopeo login REGISTRY"
                    )
        raise


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_file(file, "the registries' credentials", limit=_LIMIT))
    except ValueError as error:
        raise FormatError(f"the registries' credentials in {file} are not JSON") from error
    if not isinstance(document, dict):
        raise FormatError(f"the registries' credentials in {file} are not a JSON object")
    return document


def _files() -> list[Path]:
    """Docker's file; those that Skopeo writes itself name no store."""
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    return [Path(folder) / "config.json"]
