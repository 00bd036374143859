# SPDX-License-Identifier: Apache-2.0
"""Rotation of the keys that sign tokens, with two replicas on one store."""

import asyncio
import datetime as dt
import math
from typing import Any

import pytest
from _certificates import Party

from cocos.attestation_service import signing_keys
from cocos.attestation_service.signing_keys import LEAD, NAME, SigningKeys
from cocos.crypto import jwk, jwt
from cocos.crypto.signing import SigningKey
from cocos.errors import (
    AuthenticationError,
    ConfigError,
    InternalError,
    NotFoundError,
    StateError,
    StorageError,
)
from cocos.stores.base import Namespace, Store
from cocos.tokens.key_ring import CLOCKS
from cocos.tokens.signer import Signer
from cocos.wire import json

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(minutes=5)


class Clock:
    now = START

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def replica(store: Store, clock: Clock, own: Signer | None = None) -> SigningKeys:
    return SigningKeys(store, clock=clock, token_lifetime=LIFETIME, own=own)


async def token(keys: SigningKeys) -> str:
    signer = await keys.signer()
    return signer.key.sign(signer.header, {"a": 1})


async def kids(keys: SigningKeys) -> list[str]:
    published = await keys.published()
    return [key["kid"] for key in published["keys"]]


async def test_replicas_make_one_key(store: Store, clock: Clock) -> None:
    replicas = [replica(store, clock) for _ in range(4)]
    signers = await asyncio.gather(*(each.signer() for each in replicas))
    assert len({signer.key.kid for signer in signers}) == 1
    for each in replicas:
        for other in replicas:
            assert await each.verify(await token(other)) == {"a": 1}


async def test_what_is_published(store: Store, clock: Clock) -> None:
    keys = replica(store, clock)
    published: Any = await keys.published()
    (key,) = published["keys"]
    assert set(key) == {"alg", "kty", "crv", "x", "y", "kid", "use"}
    text = await token(keys)
    # Another program verifies with nothing but that document.
    believed = jwk.parse_set(json.encode(published), "the set")
    assert jwk.verify_with_any(believed, text) == {"a": 1}
    assert jwt.header_of(text)["kid"] == key["kid"]
    assert jwt.header_of(text)["jwk"] == {n: v for n, v in key.items() if n not in {"kid", "use"}}


async def test_rotation_without_downtime(store: Store, clock: Clock) -> None:
    here, there = replica(store, clock), replica(store, clock)
    old = await token(here)
    assert await there.verify(old)
    lead = dt.timedelta(minutes=1)
    new = await there.rotate(lead)
    # Published before it is used, on the replica that learns of it last, too.
    for keys in (here, there):
        assert (await keys.signer()).key.kid != new.kid
    await here.ring()
    assert new.kid in await kids(here)
    # The other replica's clock is ahead: its first token by the new key holds here already.
    clock.now = START + lead
    by_new = await token(there)
    assert jwt.header_of(by_new)["kid"] == new.kid
    clock.now = START + lead - dt.timedelta(seconds=30)
    assert await here.verify(by_new)
    last = await token(here)
    assert jwt.header_of(last)["kid"] != new.kid
    # The last token by the old key holds as long as it lives, on both.
    clock.now = START + lead + LIFETIME + CLOCKS - dt.timedelta(seconds=1)
    for keys in (here, there):
        assert await keys.verify(last)
        assert len(await kids(keys)) == 2
    clock.now += dt.timedelta(seconds=2)
    for keys in (here, there):
        assert await kids(keys) == [new.kid]
        with pytest.raises(AuthenticationError):
            await keys.verify(last)
        assert await keys.verify(by_new)


async def test_a_key_nobody_here_knows_yet_is_looked_for(store: Store, clock: Clock) -> None:
    here, there = replica(store, clock), replica(store, clock)
    await here.signer()
    await there.rotate(LEAD)
    clock.now = START + LEAD
    # No time has passed on the loop's clock: what is known here is fresh.
    assert await here.verify(await token(there)) == {"a": 1}


async def test_one_rotation_at_a_time(store: Store, clock: Clock) -> None:
    here, there = replica(store, clock), replica(store, clock)
    await here.rotate(LEAD)
    with pytest.raises(StateError, match="takes over"):
        await there.rotate(LEAD)
    clock.now += LEAD
    await there.rotate(LEAD)
    assert len(await kids(there)) == 3
    with pytest.raises(ConfigError):
        await here.rotate(LEAD - dt.timedelta(seconds=1))


async def test_two_rotate_at_once(store: Store, clock: Clock) -> None:
    replicas = [replica(store, clock) for _ in range(4)]
    done = await asyncio.gather(*(each.rotate(LEAD) for each in replicas), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in done) == 1
    assert all(isinstance(r, StateError) for r in done if isinstance(r, BaseException))


async def test_revocation(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = replica(store, clock), replica(store, clock)
    leaked = await token(here)
    assert await there.verify(leaked)
    await here.revoke(jwt.header_of(leaked)["kid"])
    with pytest.raises(AuthenticationError):
        await here.verify(leaked)
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", 0.0)
    with pytest.raises(AuthenticationError):
        await there.verify(leaked)
    # Another key signs at once.
    assert await there.verify(await token(here)) == {"a": 1}
    with pytest.raises(NotFoundError):
        await here.revoke("nobody")


async def test_a_change_that_cannot_be_noted_is_not_made(store: Store, clock: Clock) -> None:
    keys = replica(store, clock)
    before = await kids(keys)
    noted = []

    async def refuse(kid: str) -> None:
        noted.append(kid)
        raise StorageError("full")

    with pytest.raises(StorageError):
        await keys.rotate(LEAD, note=refuse)
    with pytest.raises(StorageError):
        await keys.revoke(before[0], note=refuse)
    with pytest.raises(NotFoundError):
        await keys.revoke("nobody", note=refuse)
    assert [key.kid for key in (await keys.ring()).keys] == before == noted[1:]


async def test_revoking_the_key_that_is_about_to_take_over(store: Store, clock: Clock) -> None:
    keys = replica(store, clock)
    first = (await keys.signer()).key.kid
    new = await keys.rotate(LEAD)
    await keys.revoke(new.kid)
    clock.now += LEAD
    assert (await keys.signer()).key.kid == first


async def test_clock_set_back(store: Store, clock: Clock) -> None:
    keys = replica(store, clock)
    await keys.rotate(LEAD)
    for days in (-400, 400, -400 * 200):
        clock.now = START + dt.timedelta(days=days)
        assert await keys.verify(await token(keys)) == {"a": 1}


async def test_key_of_the_first_versions(store: Store, clock: Clock) -> None:
    key = SigningKey.generate()
    await store.put(Namespace.KEY, NAME, key.pem())
    keys = replica(store, clock)
    assert (await keys.signer()).key.kid == key.kid
    assert await keys.verify(key.sign({"jwk": key.public_jwk()}, {"a": 1})) == {"a": 1}
    await keys.rotate(LEAD)
    assert key.kid in await kids(replica(store, clock))


async def test_own_key_takes_over_from_those_in_the_store(store: Store, clock: Clock) -> None:
    before = await token(replica(store, clock))
    own = Signer(Party("own").certify().signing_key)
    keys = replica(store, clock, own)
    assert (await keys.signer()) is own
    assert await keys.verify(await token(keys)) == {"a": 1}
    assert await keys.verify(before) == {"a": 1}
    assert len(await kids(keys)) == 2


async def test_own_key_needs_nothing_in_the_store(store: Store, clock: Clock) -> None:
    keys = replica(store, clock, Signer(SigningKey.generate()))
    assert await keys.verify(await token(keys)) == {"a": 1}
    assert await store.keys(Namespace.KEY) == []


async def test_forgeries(store: Store, clock: Clock) -> None:
    keys = replica(store, clock)
    signer = await keys.signer()
    forger = SigningKey.generate()
    kids: list[Any] = [signer.key.kid, forger.kid, [], {}, 1]
    headers: list[dict[str, Any]] = [{"kid": kid} for kid in kids]
    for header in (signer.header, *headers, {}):
        with pytest.raises(AuthenticationError):
            await keys.verify(forger.sign(header, {"a": 1}))


# --- the store --------------------------------------------------------------------------


async def test_a_change_that_never_succeeds_is_none(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a leaked key would count as revoked, and be believed."""
    keys = replica(store, clock)
    (kid,) = await kids(keys)
    tried = []

    async def never(*what: object) -> bool:
        tried.append(what)
        return False

    monkeypatch.setattr(store, "replace", never)
    for change in (keys.revoke(kid), keys.rotate(LEAD)):
        with pytest.raises(InternalError, match="others keep changing"):
            await change
    assert len(tried) > 2
    assert await kids(keys) == [kid]


async def test_a_store_that_forgets(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> bool:
        return False

    monkeypatch.setattr(store, "put_new", never)
    with pytest.raises(InternalError, match="vanished"):
        await replica(store, clock).signer()


async def test_an_operators_own_key_is_not_rotated_here(store: Store, clock: Clock) -> None:
    own = Signer(SigningKey.generate())
    keys = replica(store, clock, own)
    with pytest.raises(ConfigError, match="operator's own key"):
        await keys.rotate(LEAD)
    with pytest.raises(NotFoundError):
        await keys.revoke(own.key.kid)
    assert await store.keys(Namespace.KEY) == []


async def test_keys_that_are_in_the_store_no_more_are_not_believed(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await token(replica(store, clock))
    keys = replica(store, clock, Signer(SigningKey.generate()))
    assert await keys.verify(before) == {"a": 1}
    await store.delete(Namespace.KEY, NAME)
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", 0.0)
    with pytest.raises(AuthenticationError):
        await keys.verify(before)


@pytest.mark.parametrize("owned", [True, False])
async def test_tokens_of_known_keys_cost_no_reading(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, owned: bool
) -> None:
    """Everybody may send tokens, and as many as he likes."""
    of_the_store = await token(replica(store, clock))
    keys = replica(store, clock, Signer(SigningKey.generate()) if owned else None)
    own = await token(keys)
    await keys.ring()
    reads = []
    get = store.get

    async def counted(namespace: Namespace, key: str) -> bytes | None:
        reads.append(key)
        return await get(namespace, key)

    monkeypatch.setattr(store, "get", counted)
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", math.inf)
    nameless = SigningKey.generate().sign({}, {"a": 1})
    for _ in range(3):
        assert await keys.verify(own) == {"a": 1}
        assert await keys.verify(of_the_store) == {"a": 1}
        with pytest.raises(AuthenticationError):
            await keys.verify(nameless)
        await keys.published()
    assert reads == []
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", -1.0)
    await keys.verify(own)
    assert reads == [NAME]


async def test_no_secret_in_words(store: Store, clock: Clock) -> None:
    ring = await replica(store, clock).ring()
    assert "PRIVATE" not in repr(ring)
    assert "PRIVATE" not in str(ring.keys[0])
