# SPDX-License-Identifier: Apache-2.0
"""Credentials for registries: taken from where Docker's and Skopeo's users have them."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler as Request
from pathlib import Path

import pytest
from _layouts import gzipped, tar, write
from _lying_registry import LyingRegistry, lying_registry

from cocos.errors import AuthenticationError, FormatError, NotFoundError
from cocos.host.images import credentials
from cocos.host.images.skopeo import Skopeo

pytestmark = pytest.mark.integration

LOGIN = base64.b64encode("alice:pa ss:wörd".encode()).decode()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingRegistry]:
    """A registry for alice only; nobody has logged in anywhere on this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def mood(request: Request) -> bool:
        if request.headers.get("Authorization") == f"Basic {LOGIN}":
            return False
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Basic realm="r"')
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    write(tmp_path / "image", [gzipped(tar("a", b"x"))])
    with lying_registry() as served:
        digest, _ = served.add(tmp_path / "image")
        served.tag(digest)
        served.mood = mood
        yield served


def login(registry: LyingRegistry, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": {registry.address: {"auth": LOGIN}}}))
    return file


@pytest.mark.parametrize(
    ("variable", "file", "value"),
    [
        ("HOME", ".docker/config.json", "."),
        ("DOCKER_CONFIG", "other/config.json", "other"),
        ("REGISTRY_AUTH_FILE", "mine.json", "mine.json"),
        ("XDG_CONFIG_HOME", "conf/containers/auth.json", "conf"),
        ("XDG_RUNTIME_DIR", "run/containers/auth.json", "run"),
    ],
)
async def test_they_are_found_where_skopeo_finds_them(  # noqa: PLR0917
    tool: Skopeo,
    registry: LyingRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    file: str,
    value: str,
) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await tool.resolve(registry.url)
    assert "skopeo login" in str(caught.value.hint)
    assert LOGIN not in caught.value.message
    login(registry, tmp_path / file)
    monkeypatch.setenv(variable, str(tmp_path / value))
    await tool.resolve(registry.url)


async def test_a_store_that_is_not_asked_is_named(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"auths": {}, "credsStore": "desktop"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(AuthenticationError) as caught:
        await tool.resolve(registry.url)
    assert "credential store 'desktop'" in str(caught.value.hint)


async def test_a_file_that_is_not_there_or_not_json(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path
) -> None:
    nope = tmp_path / "nope.json"
    with pytest.raises(NotFoundError, match=r"there is no .*nope\.json"):
        await Skopeo(tool.argv, authfile=nope).resolve(registry.url)
    nope.write_text("[")
    with pytest.raises(FormatError, match="not JSON"):
        credentials.check(nope)
    nope.write_text("[]")
    with pytest.raises(FormatError, match="not a JSON object"):
        credentials.check(nope)
    login(registry, nope)
    await Skopeo(tool.argv, authfile=nope).resolve(registry.url)
