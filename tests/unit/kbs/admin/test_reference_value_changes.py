# SPDX-License-Identifier: Apache-2.0
"""Two administrators change a reference value at once: neither change is lost."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from _kbs import URL, InProcessKbs, kbs_in_process
from _through import Through

from cocos.cli.kbs_client.config_values import _beside
from cocos.clients.kbs import KbsAdmin
from cocos.clients.reference_values import change as change_value
from cocos.crypto import admin_jwt
from cocos.errors import FormatError, NotFoundError, StateError

ROUTE = "reference-value/svn"


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as kbs:
        yield kbs


@pytest.fixture
async def http(kbs: InProcessKbs) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {admin_jwt.mint(kbs.admin_key, now=kbs.now)}"}
    async with httpx.AsyncClient(
        base_url=f"{URL}/kbs/v0", headers=headers, transport=kbs.transport()
    ) as http:
        yield http


async def test_a_change_of_something_else_is_refused(http: httpx.AsyncClient) -> None:
    new = {"If-None-Match": "*"}
    assert (await http.put(ROUTE, json=["1"], headers=new)).status_code == 200
    assert (await http.put(ROUTE, json=["2"], headers=new)).status_code == 409
    first = (await http.get(ROUTE)).headers["etag"]
    assert (await http.put(ROUTE, json=["1", "2"], headers={"If-Match": first})).status_code == 200
    late = await http.put(ROUTE, json=["1", "3"], headers={"If-Match": first})
    assert late.status_code == 409
    answer = await http.get(ROUTE)
    assert answer.json() == ["1", "2"]
    assert answer.headers["etag"] != first
    for wrong in ('"x"', '"*"', f'"{first}"'):
        refused = await http.put(ROUTE, json=[], headers={"If-Match": wrong})
        assert refused.status_code in {400, 409}
    assert (await http.delete(ROUTE)).status_code == 200
    gone = await http.put(ROUTE, json=[], headers={"If-Match": answer.headers["etag"]})
    assert gone.status_code == 409
    assert (await http.get(ROUTE)).status_code == 404


async def test_what_has_expired_is_nothing(kbs: InProcessKbs, http: httpx.AsyncClient) -> None:
    end = "2026-12-24T12:00:00Z"
    answer = await http.put(ROUTE, json=["1"], params={"expiration": end})
    assert answer.status_code == 200
    assert (await http.get("reference-value")).json()[0]["expiration"] == end
    kbs.now = dt.datetime(2026, 12, 25, tzinfo=dt.UTC)
    token = {"Authorization": f"Bearer {admin_jwt.mint(kbs.admin_key, now=kbs.now)}"}
    assert (await http.get(ROUTE, headers=token)).status_code == 404
    new = {"If-None-Match": "*", **token}
    assert (await http.put(ROUTE, json=["2"], headers=new)).status_code == 200
    assert (await http.get(ROUTE, headers=token)).json() == ["2"]
    for wrong in ("tomorrow", "2026-12-24T12:00:00", ""):
        refused = await http.put(ROUTE, json=1, params={"expiration": wrong}, headers=token)
        assert refused.status_code == 400


async def test_no_change_is_lost(kbs: InProcessKbs) -> None:
    """Whoever comes second reads again; here each of them meets another's change."""
    async with kbs.admin() as one, kbs.admin() as other:

        def adding(text: str) -> Any:
            return lambda known: [*(known or []), text]

        await asyncio.gather(
            *(
                change_value(admin, "svn", adding(f"{name}{number}"))
                for number in range(6)
                for name, admin in (("a", one), ("b", other))
            )
        )
        found = await one.get_reference_value("svn")
    assert sorted(found) == sorted(f"{name}{number}" for name in "ab" for number in range(6))


async def test_a_change_between_reading_and_writing_is_kept(kbs: InProcessKbs) -> None:
    async with kbs.admin() as one, kbs.admin() as other:
        await one.set_reference_value("svn", ["old"])
        seen: list[Any] = []
        tasks: list[asyncio.Task[None]] = []

        def change(known: Any) -> Any:
            seen.append(known)
            if len(seen) == 1:
                tasks.append(asyncio.ensure_future(other.set_reference_value("svn", ["theirs"])))
            return [*known, "mine"]

        # The other's change is on its way before ours is written, or after; both stay.
        await change_value(one, "svn", change)
        await asyncio.gather(*tasks)
        found = await one.get_reference_value("svn")
    assert found in (["theirs"], ["theirs", "mine"], ["old", "mine"])
    assert seen[0] == ["old"]
    if found == ["old", "mine"]:
        pytest.fail("the change of the other was lost")


@pytest.mark.parametrize(
    ("value", "known", "expected"),
    [
        (["1"], None, ["1"]),
        (1, None, 1),
        (1, 1, 1),
        (["1", "2"], ["2", "3"], ["2", "3", "1"]),
        ([], ["1"], ["1"]),
        (1, 2, None),
        (["1"], 1, None),
        (1, [1], None),
    ],
)
def test_only_lists_are_added_to(value: Any, known: Any, expected: Any) -> None:
    """What policies compare as one value must not become a list behind their back."""
    if expected is None:
        with pytest.raises(FormatError, match="svn is one value"):
            _beside("svn", value, known)
    else:
        assert _beside("svn", value, known) == expected


async def test_a_kbs_without_conditions_is_told_all_the_same() -> None:
    """Trustee's has no PUT for a reference value: it is registered as there."""
    asked: list[str] = []

    def trustee(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.method == "GET":
            return httpx.Response(200, json=["1"])
        if request.method == "PUT":
            kind = "https://github.com/confidential-containers/kbs/errors/PluginNotFound"
            return httpx.Response(404, json={"type": kind, "detail": "Plugin not found"})
        return httpx.Response(200)

    async with KbsAdmin(
        URL,
        token="t",
        transport=Through(httpx.MockTransport(trustee), URL),
    ) as admin:
        assert await change_value(admin, "svn", lambda known: [*known, "2"]) == ["1", "2"]
    assert asked[-1] == "POST /kbs/v0/reference-value"


async def test_who_is_always_late_gives_up(kbs: InProcessKbs) -> None:
    async with kbs.admin() as admin:
        await admin.set_reference_value("svn", ["1"])
        admin_put, numbers = admin.set_reference_value, itertools.count()

        async def late(name: str, value: Any, **more: Any) -> None:
            await admin_put(name, [f"other {next(numbers)}"])
            await admin_put(name, value, **more)

        object.__setattr__(admin, "set_reference_value", late)
        with pytest.raises(StateError, match="changed meanwhile"):
            await change_value(admin, "svn", lambda known: [*known, len(known)])
        with pytest.raises(NotFoundError):
            await admin.get_reference_value("none")
