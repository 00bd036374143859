# SPDX-License-Identifier: Apache-2.0
"""Policies that would take a service down are tried in a process of their own."""

from pathlib import Path

import pytest

from cocos.errors import FormatError
from cocos.host.policy_trial import try_policy
from cocos.policy import defaults

pytestmark = pytest.mark.integration


async def test_code_in_the_working_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could write there could read every key of a KBS that was started there."""
    for name in ("resource.py", "json.py", "cocos.py"):
        (tmp_path / name).write_text("open('was-run', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    await try_policy(defaults.text(defaults.RESOURCE))
    assert not (tmp_path / "was-run").exists()


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
