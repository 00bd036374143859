# SPDX-License-Identifier: Apache-2.0
"""What strangers may ask for, and that counting it costs bounded memory."""

import datetime as dt
import ipaddress
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _generations import Guest
from _kbs import InProcessKbs, kbs_in_process

from cocos.errors import TooManyRequestsError
from cocos.kbs.admission import BURST_SECONDS, OpenSessions, RateLimit, client_of
from cocos.stores.base import Namespace, Store

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
END = NOW + dt.timedelta(minutes=5)


def admitted(limit: RateLimit, now: float, *, client: str = "a", tries: int = 100) -> int:
    count = 0
    for _ in range(tries):
        try:
            limit.admit(client, now)
        except TooManyRequestsError:
            break
        count += 1
    return count


def test_a_burst_then_a_rate() -> None:
    limit = RateLimit(2)
    assert admitted(limit, 1000.0) == 2 * BURST_SECONDS
    assert admitted(limit, 1000.1) == 0
    assert admitted(limit, 1000.5) == 1
    assert admitted(limit, 1001.0) == 1
    assert admitted(limit, 1003.0) == 4
    assert admitted(limit, 1e6) == 2 * BURST_SECONDS


def test_who_must_wait_is_told_the_truth() -> None:
    limit = RateLimit(2)
    admitted(limit, 0.0)
    with pytest.raises(TooManyRequestsError) as caught:
        limit.admit("a", 0.1)
    limit.admit("a", 0.1 + caught.value.retry_after)


def test_what_was_let_in_can_be_charged_later() -> None:
    limit = RateLimit(1)
    for _ in range(BURST_SECONDS + 1):
        limit.admit("a", 0.0, cost=0)
        limit.charge("a", 0.0)
    with pytest.raises(TooManyRequestsError):
        limit.admit("a", 0.0, cost=0)
    limit.admit("a", 1.0, cost=0)
    limit.admit("b", 0.0, cost=0)
    RateLimit(0).charge("a", 0.0)


def test_who_costs_nothing_takes_nobodys_place() -> None:
    limit = RateLimit(1, clients=1)
    admitted(limit, 0.0)
    limit.admit("b", 0.0, cost=0)
    assert admitted(limit, 0.0) == 0


def test_a_session_that_expires_now_has_expired() -> None:
    sessions = OpenSessions(limit=1)
    sessions.add("a", END, NOW)
    assert sessions.add("b", END, END) == []
    assert sessions.add("c", END, NOW) == ["b"]


def test_clients_do_not_pay_for_each_other() -> None:
    limit = RateLimit(1)
    admitted(limit, 0.0)
    assert admitted(limit, 0.0, client="b") == BURST_SECONDS


def test_zero_is_no_limit() -> None:
    assert admitted(RateLimit(0), 0.0, tries=10_000) == 10_000


def test_many_clients_cost_bounded_memory() -> None:
    limit = RateLimit(1, clients=1000)
    tracemalloc.start()
    for number in range(30_000):
        limit.admit(str(number), number / 1000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000


def test_of_too_many_sessions_the_oldest_go() -> None:
    sessions = OpenSessions(limit=3)
    assert [sessions.add(name, END, NOW) for name in "abc"] == [[], [], []]
    sessions.remove("b")
    assert sessions.add("d", END, NOW) == []
    assert sessions.add("e", END, NOW) == ["a"]
    assert sessions.add("f", END, NOW) == ["c"]


def test_sessions_that_have_expired_are_forgotten() -> None:
    sessions = OpenSessions(limit=3)
    for name in "abc":
        sessions.add(name, END, NOW)
    later = END + dt.timedelta(minutes=5)
    assert sessions.add("d", later, END) == []
    for name in "efg":
        dropped = sessions.add(name, later, END)
    assert dropped == ["d"]


def test_many_sessions_cost_bounded_memory() -> None:
    limit = 5_000
    sessions = OpenSessions(limit)
    tracemalloc.start()
    dropped = sum(len(sessions.add(f"{number:032x}", END, NOW)) for number in range(30_000))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dropped == 30_000 - limit
    assert size < 200 * limit


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8::8000:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_whose_requests_are_counted_together(one: str, other: str, same: bool) -> None:
    keys = {client_of(ipaddress.ip_address(text)) for text in (one, other)}
    assert len(keys) == (1 if same else 2)


# --- at a real KBS ---


@pytest.fixture
async def kbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcessKbs]:
    monkeypatch.setattr("cocos.kbs.charges.monotonic", lambda: 1000.0)
    async with kbs_in_process(tmp_path, auth_rate=1, trusted_proxies=["203.0.113.0/24"]) as made:
        yield made


async def test_too_many_handshakes_are_429(kbs: InProcessKbs) -> None:
    kbs.client = ("192.0.2.1", 1)
    guest = Guest(kbs)
    answers = [await guest.auth() for _ in range(BURST_SECONDS + 1)]
    assert [answer.status_code for answer in answers] == [200] * BURST_SECONDS + [429]
    refused = answers[-1]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"].endswith("/AttestationError")
    # The session that it has still works, and others are not held up.
    assert (await guest.attest()).status_code == 200
    kbs.client = ("192.0.2.2", 1)
    assert (await Guest(kbs).auth()).status_code == 200


async def test_malformed_requests_count_as_handshakes(kbs: InProcessKbs) -> None:
    kbs.client = ("192.0.2.1", 1)
    guest = Guest(kbs)
    await guest.auth()
    refused = [(await guest.attest({})).status_code for _ in range(BURST_SECONDS + 1)]
    assert refused == [400] * BURST_SECONDS + [429]
    assert (await guest.get("a/b/c")).status_code == 429
    kbs.client = ("192.0.2.2", 1)
    tokens = [
        (await guest.get("a/b/c", headers={"Authorization": "Bearer x.y.z"})).status_code
        for _ in range(BURST_SECONDS + 2)
    ]
    assert tokens == [401] * (BURST_SECONDS + 1) + [429]
    kbs.client = ("192.0.2.3", 1)
    assert (await guest.attest()).status_code == 200
    missing = [(await guest.get("a/b/c")).status_code for _ in range(BURST_SECONDS + 2)]
    assert missing == [404] * (BURST_SECONDS + 2)  # an attested guest may ask for more


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "resource/a/b/c"), ("GET", "audit"), ("GET", "audit/checkpoint")],
)
async def test_who_is_no_administrator_pays_for_asking(
    kbs: InProcessKbs, method: str, path: str
) -> None:
    kbs.client = ("192.0.2.1", 1)
    guest = Guest(kbs)
    answers = [(await guest.call(method, path)).status_code for _ in range(BURST_SECONDS + 2)]
    assert answers == [401] * (BURST_SECONDS + 1) + [429]
    kbs.client = ("192.0.2.2", 1)
    async with kbs.admin() as admin:
        for _ in range(BURST_SECONDS + 2):
            await admin.audit_head()


async def test_paths_that_are_none_cost_as_much(kbs: InProcessKbs) -> None:
    kbs.client = ("192.0.2.1", 1)
    guest = Guest(kbs)
    long = "a/b/" + "c" * 513
    answers = [(await guest.get(long)).status_code for _ in range(BURST_SECONDS + 2)]
    assert answers == [400] * (BURST_SECONDS + 1) + [429]


async def test_a_proxy_s_clients_are_told_apart(kbs: InProcessKbs) -> None:
    kbs.client = ("203.0.113.7", 1)
    for number in range(3):
        guest = Guest(kbs)
        forwarded = {"X-Forwarded-For": f"10.9.9.9, 198.51.100.{number}, 203.0.113.9"}
        for _ in range(BURST_SECONDS):
            assert (await guest.auth(headers=forwarded)).status_code == 200
        # Another story before the proxies' own entries makes no new client.
        lie = {"X-Forwarded-For": f"10.0.0.1, 198.51.100.{number}"}
        assert (await guest.auth(headers=lie)).status_code == 429


async def test_a_stranger_s_word_about_its_address_is_not_heard(kbs: InProcessKbs) -> None:
    kbs.client = ("192.0.2.1", 1)
    guest = Guest(kbs)
    for number in range(BURST_SECONDS):
        assert (
            await guest.auth(headers={"X-Forwarded-For": f"10.0.0.{number}"})
        ).status_code == 200
    assert (await guest.auth(headers={"X-Forwarded-For": "10.1.1.1"})).status_code == 429


async def test_programs_of_this_machine_are_not_counted(kbs: InProcessKbs) -> None:
    for client in (("127.0.0.1", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), None):
        kbs.client = client
        guest = Guest(kbs)
        for _ in range(BURST_SECONDS + 2):
            assert (await guest.auth()).status_code == 200


async def test_the_oldest_handshake_gives_way(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path, max_open_sessions=3) as small:
        guests = [Guest(small) for _ in range(4)]
        for guest in guests:
            await guest.auth()
        assert [(await guest.attest()).status_code for guest in guests] == [401, 200, 200, 200]
        assert small.store is not None
        assert len(await kept(small.store)) == 3


async def kept(store: Store) -> list[str]:
    return await store.keys(Namespace.SESSION)
