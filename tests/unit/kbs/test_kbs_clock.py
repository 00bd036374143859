# SPDX-License-Identifier: Apache-2.0
"""Clocks that are wrong by ten minutes, and clocks that are put right in the middle."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from _generations import Guest
from _kbs import InProcessKbs, kbs_in_process

from cocos.crypto.signing import SigningKey
from cocos.wire.kbs.protocol import ResourcePath

PATH = "default/key/1"
SECRET = b"KEK"
ISSUER = SigningKey.generate()
TEN_MINUTES = dt.timedelta(minutes=10)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[InProcessKbs]:
    folder = tmp_path_factory.mktemp("kbs")
    key_file = folder / "token.key"
    key_file.write_bytes(ISSUER.pem())
    async with kbs_in_process(folder, token_key=key_file) as made:
        async with made.admin() as admin:
            await admin.set_resource(ResourcePath.parse(PATH), SECRET)
        yield made


@pytest.fixture
def kbs(shared: InProcessKbs) -> Iterator[InProcessKbs]:
    right = shared.now
    yield shared
    shared.now = right


@pytest.mark.parametrize(("jump", "status"), [(TEN_MINUTES, 401), (-TEN_MINUTES, 200)])
async def test_between_challenge_and_evidence(
    kbs: InProcessKbs, jump: dt.timedelta, status: int
) -> None:
    guest = Guest(kbs)
    await guest.auth()
    kbs.now += jump
    answer = await guest.attest()
    assert answer.status_code == status
    if status != 200:
        assert "expired" in answer.json()["detail"]
        await guest.handshake()
    assert guest.key.decrypt((await guest.get(PATH)).json()) == SECRET


@pytest.mark.parametrize(("jump", "status"), [(TEN_MINUTES, 401), (-TEN_MINUTES, 200)])
async def test_between_evidence_and_resource(
    kbs: InProcessKbs, jump: dt.timedelta, status: int
) -> None:
    guest = Guest(kbs)
    await guest.handshake()
    kbs.now += jump
    assert (await guest.get(PATH)).status_code == status
    bearer = {"Authorization": f"Bearer {guest.token}"}
    guest.cookie = ""
    assert (await guest.get(PATH, headers=bearer)).status_code == status


@pytest.mark.parametrize(
    ("times", "status"),
    [
        ({"iat": 600, "exp": 900}, 200),  # an issuer ahead of us
        ({"iat": -600, "exp": -300}, 401),  # one behind
        ({"iat": -600, "nbf": -600, "exp": 300}, 200),
        ({"iat": 600, "nbf": 600, "exp": 900}, 401),
        ({"exp": -59}, 200),
        ({"exp": -60}, 401),
        ({"nbf": 60, "exp": 900}, 200),
        ({"nbf": 62, "exp": 900}, 401),
        ({}, 401),
        ({"exp": "soon"}, 401),
        ({"exp": -(10**30)}, 401),
        ({"exp": 300, "nbf": None}, 401),
        ({"exp": True}, 401),
    ],
    ids=str,
)
async def test_tokens_of_other_clocks(
    kbs: InProcessKbs, times: dict[str, object], status: int
) -> None:
    now = int(kbs.now.timestamp())
    guest = Guest(kbs)
    await guest.handshake()
    submods = guest.claims()
    for name, value in times.items():
        small = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9
        times = {**times, name: now + value if small else value}  # type: ignore[operator]
    token = ISSUER.sign({}, {"submods": submods, **times})
    guest.cookie = ""
    answer = await guest.get(PATH, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["type"].endswith("/TokenVerifierError")
