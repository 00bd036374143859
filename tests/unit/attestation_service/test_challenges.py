# SPDX-License-Identifier: Apache-2.0
"""States that leave the service and come back: for one attester, one nonce, once, in time."""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cocos.attestation_service.challenges import MAX_STATE, PERIOD, Challenges
from cocos.crypto import base64url, envelope
from cocos.errors import EvidenceError
from cocos.stores.base import Namespace
from cocos.stores.sql import SqlStore, open_database
from cocos.wire.kbs.protocol import Tee

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(minutes=5)
SECOND = dt.timedelta(seconds=1)
NONCE = "bm9uY2U="
STATE = {"ak": "digest"}


class Replica:
    """One of the services on a store, with a clock of its own."""

    def __init__(self, store: SqlStore, lifetime: dt.timedelta) -> None:
        self.now = START
        self.challenges = Challenges(store, clock=lambda: self.now, lifetime=lifetime)

    async def ask(self, tee: Tee = Tee.TPM, nonce: str = NONCE) -> tuple[str, bytes]:
        """Return the sealed state and the secret."""
        challenge = await self.challenges.begin(tee, nonce)
        return challenge.asked({}, STATE).state, challenge.secret

    async def refusal(self, state: str, tee: Tee = Tee.TPM, nonce: object = NONCE) -> str:
        """Return why a state is not taken."""
        with pytest.raises(EvidenceError) as caught:
            await self.challenges.redeem(tee, nonce, state)
        (finding,) = caught.value.findings
        assert finding.check == f"{tee}.state"
        return finding.problem


@asynccontextmanager
async def replicas(
    folder: Path, lifetime: dt.timedelta = LIFETIME
) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two services on one database, whose own clock is the first one's."""
    made: list[Replica] = []
    store = await SqlStore.open(
        f"sqlite:///{folder}/s.sqlite3", clock=lambda: made[0].now if made else START
    )
    made += [Replica(store, lifetime), Replica(store, lifetime)]
    yield made[0], made[1]
    await store.close()


async def test_what_comes_back_in_time_opens_at_every_replica_and_once(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (first, second):
        state, secret = await first.ask()
        kept = await second.challenges.redeem(Tee.TPM, NONCE, state)
        assert kept.state == STATE
        assert kept.secret == secret
        assert len(secret) == 32
        for replica in (first, second):
            assert "has been used" in await replica.refusal(state)
        # Another state of the same challenge is no second chance.
        again, _ = await second.ask()
        assert again != state
        assert "has been used" in await first.refusal(again)


async def test_for_one_attester_and_one_nonce(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (first, _):
        state, secret = await first.ask()
        other, others = await first.ask(Tee.SAMPLE)
        assert others != secret
        assert (await first.ask(nonce="b3RoZXI="))[1] != secret
        assert "not made by this service" in await first.refusal(state, Tee.SAMPLE)
        assert "not made by this service" in await first.refusal(other)
        nonces: list[object] = ["b3RoZXI=", "", None, 1, [NONCE], {}]
        for nonce in nonces:
            assert "not made by this service" in await first.refusal(state, nonce=nonce)
        number, _ = await first.ask(nonce="1")
        assert "not made by this service" in await first.refusal(number, nonce=1)
        # Refusals have used nothing up.
        assert (await first.challenges.redeem(Tee.TPM, NONCE, state)).secret == secret


async def test_neither_state_nor_secret_can_be_read_on_the_way(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (first, _):
        challenge = await first.challenges.begin(Tee.TPM, NONCE)
        raw = base64url.decode(challenge.asked({}, STATE).state, "it")
        assert b"digest" not in raw
        assert challenge.secret not in raw
        assert repr(challenge.secret) not in repr(challenge)


@pytest.mark.parametrize("text", ["", "!", "AAAA", "A" * MAX_STATE, "A" * (MAX_STATE + 1)])
async def test_what_is_no_state(tmp_path: Path, text: str) -> None:
    async with replicas(tmp_path) as (first, _):
        await first.ask()
        assert "not made by this service" in await first.refusal(text)


async def test_expiry_to_the_microsecond(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (first, _):
        late, _secret = await first.ask()
        first.now = START + LIFETIME
        assert "has expired" in await first.refusal(late)
        first.now -= dt.timedelta.resolution
        await first.challenges.redeem(Tee.TPM, NONCE, late)


async def test_a_clock_that_is_behind_makes_no_second_chance(tmp_path: Path) -> None:
    """The mark outlives the state by what clocks may differ."""
    async with replicas(tmp_path) as (first, behind):
        state, _ = await first.ask()
        await first.challenges.redeem(Tee.TPM, NONCE, state)
        behind.now = START + LIFETIME - SECOND
        first.now = behind.now + dt.timedelta(minutes=5)
        assert "has been used" in await behind.refusal(state)


@pytest.mark.parametrize("lifetime", [LIFETIME, 3 * PERIOD, dt.timedelta(hours=2, minutes=59)])
async def test_a_key_lives_as_long_as_its_states(tmp_path: Path, lifetime: dt.timedelta) -> None:
    async with replicas(tmp_path, lifetime) as (first, second):
        begun = START + PERIOD - SECOND
        first.now = second.now = begun
        state, secret = await first.ask()
        ahead, _ = await first.ask(nonce="b3RoZXI=")
        first.now = second.now = begun + lifetime - SECOND
        assert (await second.challenges.redeem(Tee.TPM, NONCE, state)).secret == secret
        first.now = begun + lifetime + SECOND
        assert "has expired" in await first.refusal(ahead, nonce="b3RoZXI=")
        first.now = second.now = begun + lifetime + 3 * PERIOD
        assert "not made by this service" in await second.refusal(ahead, nonce="b3RoZXI=")


async def test_keys_change_and_the_next_one_is_known_to_a_clock_that_is_behind(
    tmp_path: Path,
) -> None:
    async with replicas(tmp_path) as (first, behind):
        old, _ = await first.ask()
        first.now, behind.now = START + PERIOD, START + PERIOD - SECOND
        new, _ = await first.ask()
        keys = {envelope.key_id(base64url.decode(each, "it")) for each in (old, new)}
        assert len(keys) == 2
        await behind.challenges.redeem(Tee.TPM, NONCE, new)


class Counting(SqlStore):
    """A store that counts what is asked of it."""

    gets = 0

    async def get(self, namespace: Namespace, key: str) -> bytes | None:
        self.gets += 1
        return await super().get(namespace, key)


async def test_keys_of_hours_that_cannot_be_are_not_looked_for(tmp_path: Path) -> None:
    """Whoever reaches the port names the key; the database is not asked for any name."""
    database = await open_database(f"sqlite:///{tmp_path}/s.sqlite3")
    store = Counting(database, clock=lambda: START)
    try:
        own = Replica(store, LIFETIME)
        hour = (START - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // PERIOD
        for number, asked in ((0, 0), (hour - 3, 0), (hour, 1), (hour + 1, 1), (hour + 2, 0)):
            key = envelope.DataKey(number.to_bytes(envelope.KEY_ID_BYTES, "big"), bytes(32))
            state = base64url.encode(envelope.seal(key, "challenge", f"{Tee.TPM} {NONCE}", b"{}"))
            store.gets = 0
            assert "not made by this service" in await own.refusal(state)
            assert store.gets == asked
    finally:
        await store.close()
