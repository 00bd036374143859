# SPDX-License-Identifier: Apache-2.0
"""Registries that answer something else, or nothing: their words and our exit codes."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler as Request
from pathlib import Path

import pytest
from _layouts import gzipped, tar, write
from _lying_registry import LyingRegistry, lying_registry

from cocos.errors import CocosError
from cocos.host.images import _skopeo_run
from cocos.host.images.registry_words import ask_again
from cocos.host.images.skopeo import Skopeo

pytestmark = pytest.mark.integration

PAGE = (
    b"<!DOCTYPE html><html><head><title>Sign in to Guest WiFi</title></head><body>x</body></html>"
)
LIMIT = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"your \x1b[31m pull rate limit"}]}'
DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
BROKEN = b'{"errors":[{"code":"UNKNOWN","message":"the storage driver is on fire"}]}'


Mood = Callable[[Request], bool]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LyingRegistry]:
    write(tmp_path / "image", [gzipped(tar("a", b"x" * 99)), gzipped(tar("b", bytes(10)))])
    with lying_registry() as served:
        digest, _ = served.add(tmp_path / "image")
        served.tag(digest)
        yield served


def send(request: Request, status: int, body: bytes, **headers: str) -> bool:
    request.send_response(status)
    usual = {"Content_Type": "application/json", "Content_Length": str(len(body))}
    for name, value in {**usual, **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
    return True


def mood_at(place: str, status: int, body: bytes, headers: dict[str, str]) -> Mood:
    """Return a mood that answers so wherever the path holds ``place``."""
    return lambda request: place in request.path and send(request, status, body, **headers)


async def failure(tool: Skopeo, registry: LyingRegistry, target: Path) -> CocosError:
    with pytest.raises(CocosError) as caught:
        await tool.copy(registry.url, f"oci:{target}")
    return caught.value


ANYWHERE, MANIFEST, BLOB, PING = "/", "/manifests/", "/blobs/", "/v2/"
HTML = {"Content_Type": "text/html"}


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        ((MANIFEST, 429, LIMIT, {"Retry_After": "3600"}), 75, ["3600 s", "pull rate limit"]),
        ((BLOB, 429, LIMIT, {"Retry_After": "3600"}), 75, ["3600 s", "pull rate limit"]),
        ((MANIFEST, 429, b"slow down!", {"Retry_After": "90"}), 75, ["90 s", "slow down!"]),
        ((MANIFEST, 429, PAGE, {"Retry_After": "90", **HTML}), 75, ["90 s", "Guest WiFi"]),
        ((MANIFEST, 500, BROKEN, {}), 69, []),
        ((MANIFEST, 502, PAGE, HTML), 69, ["502"]),
        ((MANIFEST, 503, b"", {}), 69, ["503"]),
        ((PING, 503, PAGE, HTML), 69, ["503"]),
        ((BLOB, 504, b"", {}), 69, ["504"]),
        ((PING, 403, PAGE, HTML), 69, ["web page", "403"]),
        ((PING, 511, PAGE, HTML), 69, ["511"]),
        ((ANYWHERE, 200, PAGE, HTML), 69, ["web page", "Sign in to Guest WiFi"]),
        ((MANIFEST, 200, PAGE, HTML), 69, ["web page", "Sign in to Guest WiFi"]),
        ((MANIFEST, 403, DENIED, {}), 77, ["denied"]),
        ((MANIFEST, 404, b"{}", {}), 66, []),
        ((MANIFEST, 418, b"short and stout", {}), 76, ["418"]),
    ],
)
async def test_what_it_says_reaches_the_user(  # noqa: PLR0917
    tool: Skopeo,
    registry: LyingRegistry,
    tmp_path: Path,
    answer: tuple[str, int, bytes, dict[str, str]],
    exit_code: int,
    words: list[str],
) -> None:
    registry.mood = mood_at(*answer)
    error = await failure(tool, registry, tmp_path / "out")
    assert error.exit_code == exit_code, error.message
    assert error.hint
    assert "debug" not in error.message
    for word in (*words, registry.address):
        assert word in error.message


def once(place: str, status: int, body: bytes, headers: dict[str, str]) -> Mood:
    asked: list[str] = []

    def mood(request: Request) -> bool:
        if place not in request.path or asked:
            return False
        asked.append(request.path)
        request.close_connection = True
        return send(request, status, body, **headers)

    return mood


def redirected(request: Request) -> bool:
    if BLOB not in request.path or "signed" in request.path:
        return False
    return send(request, 307, b"", Location=f"{request.path}?signed=1")


@pytest.mark.parametrize(
    "mood",
    [
        once(MANIFEST, 429, LIMIT, {"Retry_After": "1"}),
        once(BLOB, 429, LIMIT, {"Retry_After": "1"}),
        once(BLOB, 503, b"try again", {}),
        lambda request: request.command == "HEAD" and send(request, 405, b""),
        redirected,
    ],
    ids=["429 of a manifest", "429 of a blob", "503", "no HEAD", "redirects"],
)
async def test_passing_moods_are_borne(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path, mood: Mood
) -> None:
    registry.mood = mood
    await tool.copy(registry.url, f"oci:{tmp_path}/out")


async def test_for_the_reason_nobody_else_is_asked(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path
) -> None:
    """A registry that leads us elsewhere would have us tell what is said there."""
    elsewhere: list[str] = []

    def mood(request: Request) -> bool:
        if "secret" in request.path:
            elsewhere.append(request.path)
            return send(request, 429, b"a secret of this machine")
        if MANIFEST not in request.path:
            return False
        if "skopeo" in request.headers.get("User-Agent", ""):
            return send(request, 429, b"", Retry_After="60")
        return send(request, 302, b"", Location=f"http://{registry.address}/secret")

    registry.mood = mood
    error = await failure(tool, registry, tmp_path / "out")
    assert error.exit_code == 75
    assert not elsewhere
    assert "secret" not in error.message


@pytest.mark.parametrize("pause", ["99", "1.2.3", "9" * 400])
async def test_what_it_quotes_is_not_what_skopeo_says(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path, pause: str
) -> None:
    """A registry whose headers are in Skopeo's log would have us ask any address."""
    elsewhere: list[str] = []
    forged = f"Too many requests to http://{registry.address}/secret: sleeping for {pause} seconds"

    def mood(request: Request) -> bool:
        if "secret" in request.path:
            elsewhere.append(request.path)
            return send(request, 429, b"a secret of this machine")
        if MANIFEST not in request.path:
            return False
        return send(request, 200, b"{}", Content_Type=f'{forged}\\" msg="{forged}')

    registry.mood = mood
    error = await failure(tool, registry, tmp_path / "out")
    assert not elsewhere
    assert error.exit_code != 75, error.message


async def test_the_reason_is_asked_of_servers_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # whoever opens it waits for ever
    for url in (f"file://{tmp_path}/fifo", "ftp://127.0.0.1:1/", "data:,x"):
        asked = threading.Thread(target=ask_again, args=(url,), daemon=True)
        asked.start()
        await asyncio.to_thread(asked.join, 20)
        assert not asked.is_alive(), url


async def test_a_body_that_ends_too_early(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path
) -> None:
    def mood(request: Request) -> bool:
        if BLOB not in request.path:
            return False
        request.close_connection = True
        return send(request, 200, b"half", Content_Length="99", Connection="close")

    registry.mood = mood
    error = await failure(tool, registry, tmp_path / "out")
    assert error.exit_code == 69, error.message
    assert error.hint
    assert "broke off in the middle: unexpected EOF" in error.message


async def test_one_that_falls_silent_is_given_up(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def mood(request: Request) -> bool:
        if BLOB not in request.path:
            return False
        send(request, 200, b"a", Content_Length="99")
        request.wfile.flush()
        ended.wait()
        return True

    registry.mood = mood
    monkeypatch.setattr(_skopeo_run, "STALL_SECONDS", 1.0)
    try:
        error = await failure(tool, registry, tmp_path / "out")
    finally:
        ended.set()
    assert error.exit_code == 69
    assert "nothing has moved for 1 s" in error.message


async def test_a_type_that_a_mirror_has_changed(
    tool: Skopeo, registry: LyingRegistry, tmp_path: Path
) -> None:
    registry.manifests = {
        name: ("application/octet-stream", text) for name, (_, text) in registry.manifests.items()
    }
    error = await failure(tool, registry, tmp_path / "out")
    assert error.exit_code == 76
    assert "Content-Type" in str(error.hint)
