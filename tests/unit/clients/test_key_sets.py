# SPDX-License-Identifier: Apache-2.0
"""Keys of an issuer, as it is there, changes them, and goes away."""

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from _through import Through
from joserfc import jwt as jose
from joserfc.jwk import ECKey

from cocos.clients import key_sets
from cocos.clients.key_sets import KeySet, parse_pem
from cocos.crypto.jwk import parse_set
from cocos.errors import AuthenticationError, ConfigError, FormatError, UnreachableError

URL = "https://issuer.test/jwks?tenant=a"


class Issuer:
    """An issuer whose answers the test chooses, and a clock."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256")
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.now = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
        self.publish("/jwks?tenant=a")

    def publish(self, route: str) -> None:
        self.answers[route] = (200, self.document())

    def document(self) -> bytes:
        return json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()

    def token(self) -> str:
        return jose.encode({"alg": "ES256"}, {"role": "admin"}, self.key)

    def answer(self, request: httpx.Request) -> httpx.Response:
        route = request.url.raw_path.decode()
        self.asked.append(route)
        status, body = self.answers.get(route, (404, b""))
        return httpx.Response(status, content=body)

    def keys(self, place: str = URL, parse: Any = parse_set) -> KeySet:
        transport = Through(httpx.MockTransport(self.answer), place)
        return KeySet(place, parse, clock=lambda: self.now, transport=transport)

    def wait(self, **span: float) -> None:
        self.now += dt.timedelta(**span)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


async def test_keys_are_fetched_when_needed_and_kept(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert issuer.asked == []
    for _ in range(3):
        assert await keys.verify(issuer.token()) == {"role": "admin"}
    assert issuer.asked == ["/jwks?tenant=a"]
    issuer.wait(hours=1)
    await keys.verify(issuer.token())
    assert len(issuer.asked) == 2


async def test_a_new_key_is_found_and_an_old_one_forgotten(issuer: Issuer) -> None:
    keys, old = issuer.keys(), issuer.token()
    await keys.verify(old)
    issuer.key = ECKey.generate_key("P-256")
    issuer.publish("/jwks?tenant=a")
    issuer.wait(seconds=30)
    assert await keys.verify(issuer.token()) == {"role": "admin"}
    with pytest.raises(AuthenticationError):
        await keys.verify(old)


async def test_strangers_cannot_make_us_ask_again_and_again(issuer: Issuer) -> None:
    keys = issuer.keys()
    stranger = Issuer().token()
    for _ in range(5):
        with pytest.raises(AuthenticationError):
            await keys.verify(stranger)
    assert len(issuer.asked) == 1
    with pytest.raises(FormatError):
        await issuer.keys().verify("nonsense")
    assert len(issuer.asked) == 1


async def test_an_issuer_that_is_away(issuer: Issuer) -> None:
    keys = issuer.keys()
    known = dict(issuer.answers)
    issuer.answers.clear()
    for _ in range(3):
        with pytest.raises(UnreachableError, match="keys cannot be fetched") as caught:
            await keys.verify(issuer.token())
        assert "issuer.test" not in f"{caught.value.message}{caught.value.hint}"
    assert len(issuer.asked) == 2  # the set, then the discovery document; once
    issuer.answers.update(known)
    issuer.wait(seconds=30)
    await keys.verify(issuer.token())
    issuer.answers.clear()
    issuer.wait(hours=23)
    await keys.verify(issuer.token())
    issuer.wait(hours=2)
    with pytest.raises(UnreachableError):
        await keys.verify(issuer.token())


async def test_a_slow_issuer_keeps_only_those_waiting_who_need_it(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, answered = issuer.keys(), asyncio.Event()
    await keys.verify(issuer.token())
    issuer.wait(minutes=1)
    old, issuer.key = issuer.token(), ECKey.generate_key("P-256")
    issuer.publish("/jwks?tenant=a")
    load = keys._load

    async def slow() -> Any:
        await answered.wait()
        return await load()

    monkeypatch.setattr(keys, "_load", slow)
    waiting = [asyncio.create_task(keys.verify(issuer.token())) for _ in range(3)]
    await asyncio.sleep(0)
    assert await keys.verify(old) == {"role": "admin"}
    assert not any(task.done() for task in waiting)
    answered.set()
    assert await asyncio.gather(*waiting) == [{"role": "admin"}] * 3
    assert len(issuer.asked) == 2


async def test_nobody_waits_for_a_slow_issuer_for_long(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sets, "PATIENCE_SECONDS", 0.0)
    keys, never = issuer.keys(), asyncio.Event()
    monkeypatch.setattr(keys, "_load", never.wait)
    with pytest.raises(UnreachableError):
        await keys.verify(issuer.token())


async def test_discovery(issuer: Issuer) -> None:
    metadata = json.dumps({"issuer": "x", "jwks_uri": "https://issuer.test/keys"}).encode()
    issuer.answers["/realm/.well-known/openid-configuration"] = (200, metadata)
    issuer.publish("/keys")
    keys = issuer.keys("https://issuer.test/realm/")
    assert await keys.verify(issuer.token()) == {"role": "admin"}
    assert issuer.asked == ["/realm/", "/realm/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "metadata",
    [
        b"{}",
        b"[]",
        b'{"jwks_uri": 1}',
        b'{"jwks_uri": "file:///etc/passwd"}',
        b'{"jwks_uri": "/etc/passwd"}',
        b'{"jwks_uri": "http://issuer.test/keys"}',
        b'{"jwks_uri": "https://issuer.test/none"}',
    ],
)
async def test_discovery_that_leads_nowhere(issuer: Issuer, metadata: bytes) -> None:
    issuer.answers = {"/.well-known/openid-configuration": (200, metadata)}
    with pytest.raises(UnreachableError):
        await issuer.keys("https://issuer.test").verify(issuer.token())


async def test_a_file_is_read_at_once_and_again_when_a_key_is_unknown(
    issuer: Issuer, tmp_path: Path
) -> None:
    file = tmp_path / "keys with spaces.json"
    file.write_bytes(issuer.document())
    keys = issuer.keys(file.as_uri())
    assert await issuer.keys(str(file)).verify(issuer.token()) == {"role": "admin"}
    issuer.key = ECKey.generate_key("P-256")
    file.write_bytes(issuer.document())
    assert await keys.verify(issuer.token()) == {"role": "admin"}
    file.unlink()
    issuer.wait(hours=2)
    assert await keys.verify(issuer.token()) == {"role": "admin"}
    assert issuer.asked == []


async def test_a_key_in_pem(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    file.write_bytes(issuer.key.as_pem(private=False))
    assert await issuer.keys(str(file), parse_pem).verify(issuer.token()) == {"role": "admin"}
    issuer.answers["/key.pem"] = (200, issuer.key.as_pem(private=False))
    fetched = issuer.keys("https://issuer.test/key.pem", parse_pem)
    assert await fetched.verify(issuer.token()) == {"role": "admin"}


@pytest.mark.parametrize(
    "place", ["http://issuer.test/jwks", "ftp://x/y", "file://host/x", "https://", "https://u@h/"]
)
def test_places_that_are_refused(issuer: Issuer, place: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        issuer.keys(place)


def test_files_that_are_refused(issuer: Issuer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        issuer.keys(str(tmp_path / "none"))
    file = tmp_path / "keys"
    for content in (b"junk", b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}'):
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            issuer.keys(str(file))
