# SPDX-License-Identifier: Apache-2.0
"""Policies that would take a service down are tried in a process of their own."""

import pytest

from cocos.errors import FormatError
from cocos.host.policy_trial import try_policy
from cocos.policy import defaults

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", [defaults.RESOURCE, *defaults.ATTESTATION])
async def test_defaults_pass(name: str) -> None:
    await try_policy(defaults.text(name))


@pytest.mark.parametrize(
    "text",
    [
        "package policy\ndefault allow := 1\ndefault allow := 2",
        "package policy\nallow := true else := 2",
        "package policy\nimport data\nallow := 1",
        "package policy\nx := [1 | some a in numbers.range(1, 100000000)]\nallow := x",
    ],
)
async def test_engine_crashes_or_runs_out_of_memory(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocos.host.policy_trial.SECONDS", 5)
    with pytest.raises(FormatError, match=r"crashes|does not finish"):
        await try_policy(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("package policy\nallow if {", "line 2"),
        ("package policy\nallow := opa.runtime()", r"line 2: opa\.runtime"),
        ("package policy\nallow := \ud800", "not text"),
    ],
)
async def test_message_comes_through(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        await try_policy(text)
