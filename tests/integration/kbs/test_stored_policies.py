# SPDX-License-Identifier: Apache-2.0
"""Policies that are stored: who learns at a start that they are not what they look like."""

from pathlib import Path

import pytest
from _kbs import kbs_in_process
from _kbs_program import start_kbs
from _manager import eventually
from structlog.testing import capture_logs

from cocos._clock import system_clock
from cocos.cli.kbs.reviewing import reviewing
from cocos.cli.owner.doctor_checks import Verdict, check_policies
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import AccessDeniedError
from cocos.host.policies.workers import PolicyWorkers
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.resource_policy import ResourcePolicy
from cocos.policy import defaults
from cocos.stores.base import Namespace
from cocos.wire.kbs.protocol import ResourceUri

pytestmark = pytest.mark.integration

DOUBTFUL = "package policy\ndefault allow := false\nalow if input.submods\n"


async def test_operator_and_owner_are_told(tmp_path: Path) -> None:
    async with start_kbs(tmp_path) as kbs:
        (check,) = await check_policies(
            kbs.url, Credentials(private_key=kbs.key_file.read_bytes()), system_clock
        )
        assert check.verdict is Verdict.OK
        token = admin_jwt.mint(kbs.pem, now=system_clock())
        async with KbsAdmin(kbs.url, token=token) as admin:
            (warning,) = await admin.set_resource_policy(DOUBTFUL, "resource/a")
        assert "did you mean allow?" in warning
    async with start_kbs(tmp_path) as kbs:
        await eventually(lambda: "policy.doubtful" in kbs.program.text)
        (line,) = [each for each in kbs.program.text.splitlines() if "policy.doubtful" in each]
        assert "resource/a" in line
        (check,) = await check_policies(
            kbs.url, Credentials(private_key=kbs.key_file.read_bytes()), system_clock
        )
        assert check.verdict is Verdict.WARNING
        assert "resource/a: line 3: nobody asks for alow" in check.detail
        (check,) = await check_policies(kbs.url, Credentials(), system_clock)
        assert check.verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("package policy\nallow if crypto.sha256(input.a) == `b`\n", "crypto.sha256"),
        ("package policy\nallow { input.a }\n", "`if` keyword is required"),
        ("package policy\nalow := true\n", "no rule allow"),
    ],
)
async def test_what_an_older_version_took_is_named(tmp_path: Path, text: str, why: str) -> None:
    async with kbs_in_process(tmp_path) as kbs, PolicyWorkers(1) as engine:
        assert kbs.store is not None
        await kbs.store.put(Namespace.RESOURCE_POLICY, "resource/old", text.encode())
        policies = ResourcePolicy(
            kbs.store, engine, default=defaults.text(defaults.RESOURCE), metrics=KbsMetrics()
        )
        with capture_logs() as logs:
            await policies.review()
        (refused,) = [each for each in logs if each["event"] == "policy.REFUSED"]
        assert refused["policy"] == "resource/old"
        assert why in refused["why"]
        async with reviewing([policies]):
            pass  # who ends while it looks ends


async def test_a_denial_names_the_statement(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path) as kbs:
        policy = 'package policy\nallow if {\n\tinput.submods.cpu0["ear.status"] == "none"\n}\n'
        async with kbs.admin() as admin:
            assert await admin.set_resource_policy(policy) == ()
        async with kbs.guest() as guest:
            with pytest.raises(AccessDeniedError) as denied:
                await guest.get_resource(ResourceUri.parse("kbs:///default/key/1"))
        async with kbs.admin() as admin:
            denial = await admin.explain((denied.value.hint or "").rpartition(" ")[2])
        (finding,) = [each for each in denial["findings"] if "line 3" in each["problem"]]
        assert finding["actual"] == '"affirming"'
        assert finding["expected"] == '== "none"'
