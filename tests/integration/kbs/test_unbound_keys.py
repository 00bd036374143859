# SPDX-License-Identifier: Apache-2.0
"""Keys of images of which nobody said who may have them: who is told, and who is not."""

import base64
from pathlib import Path

import pytest
from _kbs import URL, admin_pair, kbs_in_process
from _kbs_program import start_kbs
from httpx import AsyncClient

from cocos._clock import system_clock
from cocos.cli.owner.doctor_checks import Verdict, check_keys
from cocos.clients.admin_credentials import Credentials
from cocos.errors import AuthenticationError
from cocos.policy import defaults, owners
from cocos.policy.owners import Terms
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = b"k" * 32
STORED = {
    "default/key/raw": KEY,
    "default/key/text": base64.b64encode(KEY) + b"\n",
    "default/key/bound": KEY,
    "default/key2/x": KEY,
    "team/key/prefix": KEY,
    "default/text/short": b"k" * 31,
    "default/text/long": b"k" * 33,
    "default/text/empty": b"",
}
OWN = owners.write(Terms(), said="any computation, said so")


@pytest.mark.parametrize(
    ("global_policy", "found"),
    [
        (None, ["default/key/raw", "default/key/text", "default/key2/x"]),
        (
            defaults.text(defaults.RESOURCE),
            ["default/key/raw", "default/key/text", "default/key2/x"],
        ),
        (defaults.ALLOW_ALL, ["default/key/raw", "default/key/text", "default/key2/x"]),
        (defaults.DENY_ALL, []),
        (owners.write(Terms(computations=({"manifest_digest": ["a" * 64]},)), said="x"), []),
    ],
    ids=["none", "the default, stored", "everything", "nothing", "somebody's own"],
)
async def test_which_they_are(tmp_path: Path, global_policy: str | None, found: list[str]) -> None:
    async with kbs_in_process(tmp_path) as kbs:
        async with kbs.admin() as admin:
            for name, data in STORED.items():
                await admin.set_resource(ResourcePath.parse(name), data)
            await admin.set_resource_policy(OWN, "resource/default/key/bound")
            await admin.set_resource_policy(OWN, "resource/team")
            if global_policy is not None:
                await admin.set_resource_policy(global_policy)
            assert await admin.unbound_keys() == found
        async with AsyncClient(transport=kbs.transport(), base_url=URL) as http:
            for token in ("", "Bearer e30="):
                headers = {"Authorization": token}
                answer = await http.get("/kbs/v0/unbound-key", headers=headers)
                assert answer.status_code == 401
                assert not any(name in answer.text for name in STORED)
        async with kbs.admin(admin_pair()[0]) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.unbound_keys()


async def test_the_operator_and_the_owner_are_told(tmp_path: Path) -> None:
    warning = "kbs.keys-under-the-default-policy"
    key = ResourcePath.parse("default/key/raw")
    async with start_kbs(tmp_path) as kbs:
        assert warning not in kbs.program.text
        (check,) = await check_keys(
            kbs.url, Credentials(private_key=kbs.key_file.read_bytes()), system_clock
        )
        assert check.verdict is Verdict.OK
        await kbs.store(key, KEY)
    async with start_kbs(tmp_path) as kbs:
        (line,) = [line for line in kbs.program.text.splitlines() if warning in line]
        assert "default/key/raw" in line
        assert "--for MANIFEST" in line
        (check,) = await check_keys(
            kbs.url, Credentials(private_key=kbs.key_file.read_bytes()), system_clock
        )
        assert check.verdict is Verdict.WARNING
        assert "default/key/raw" in check.detail
        (check,) = await check_keys(kbs.url, Credentials(), system_clock)
        assert check.verdict is Verdict.SKIPPED
        assert "default/key/raw" not in str(check)
