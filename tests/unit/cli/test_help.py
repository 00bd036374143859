# SPDX-License-Identifier: Apache-2.0
"""Every command of every program says what it does, and what each of its options is for."""

import pytest
from _command_lines import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_something_of_everything(name: str) -> None:
    command = COMMANDS[name]
    assert len(command.help or "") > 10
    for parameter in command.params:
        text = getattr(parameter, "help", None) or ""
        assert len(text) > 5, f"{name}: {parameter.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_a_secret(name: str) -> None:
    """Arguments are visible to everybody on the machine; secrets come in files."""
    for parameter in COMMANDS[name].params:
        words = set((parameter.name or "").split("_"))
        if words & {"password", "secret", "token"}:
            assert words & {"file", "type"}, f"{name}: {parameter.name} is no file"


def test_the_guides_commands_are_there() -> None:
    wanted = {"agent create", "agent list", "agent show", "agent logs", "agent remove", "create-vm",
              "remove-vm", "keys", "env", "doctor", "encrypt", "result", "checksum"}  # fmt: skip
    assert {f"cocos-cli {name}" for name in wanted} <= set(COMMANDS)
    for name in ("agent create", "create-vm"):
        options = {text for each in COMMANDS[f"cocos-cli {name}"].params for text in each.opts}
        assert {
            "--manager-url", "--cvms-url", "--server-url", "--ttl", "--log-level", "--server-ca",
            "--client-key", "--client-crt", "--ca-url", "--aa-kbs-params", "--wait",
        } <= options  # fmt: skip
