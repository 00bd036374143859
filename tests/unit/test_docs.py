# SPDX-License-Identifier: Apache-2.0
"""What the documentation must name, it names: tests, settings, variables, exit codes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import fields

from cocos import errors
from cocos.agent import config as agent
from cocos.cli.guest import attestation_agent
from cocos.cli.kbs import command as kbs
from cocos.cli.kbs import grpc_as
from cocos.errors import CocosError
from cocos.kbs.config import Settings
from cocos.manager import config as manager
from cocos.policy import builtins
from cocos.wire.manifest import shapes as manifest

ROOT = Path(__file__).resolve().parents[2]
OPERATE = ROOT / "docs" / "operate"


def names(page: str) -> set[str]:
    """Return what stands between backticks on a page, word by word."""
    text = (OPERATE / page).read_text("utf-8")
    return {word for quoted in re.findall(r"`([^`\n]+)`", text) for word in quoted.split()}


@pytest.mark.parametrize("page", ["operate/failures.md", "threat-model.md"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / page).read_text("utf-8"))
    assert len(named) > 20
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"


def test_every_claim_of_the_threat_model_names_its_test() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    _, _, claims = text.partition("\n## What they cannot\n")
    claims, _, _ = claims.partition("\n## ")
    rows = re.findall(r"^\| .* \|$", claims, re.MULTILINE)[1:]
    assert len(rows) > 20
    for row in rows:
        assert re.search(r"\| `tests/[^|]+ \|$", row), f"no test: {row}"


def members(*shapes: type) -> set[str]:
    return {field.encode_name for shape in shapes for field in fields(shape)}


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        (
            "manifest.md",
            members(
                manifest.Guide,
                manifest.GuideAlgorithm,
                manifest.GuideDataset,
                manifest.Consumer,
                manifest.AgentConfig,
            ),
        ),
        ("manifest.md", set(agent.AgentSettings.model_fields) | set(agent.ENVIRONMENT.values())),
        ("kbs-settings.md", set(Settings.model_fields) - {"notes", "places"} | {"auth_public_key"}),
        ("kbs-settings.md", set(kbs.ENVIRONMENT.values())),
        ("manager.md", set(manager.ManagerConfig.model_fields)),
        ("manager.md", set(manager.ENVIRONMENT.values())),
        ("tokens.md", set(grpc_as.ENVIRONMENT.values())),
        ("guest.md", set(attestation_agent.ENVIRONMENT.values()) - {"COCOS_INSECURE_SAMPLE"}),
    ],
)
def test_settings_are_on_their_page(page: str, wanted: set[str]) -> None:
    text = re.findall(r"\w+", " ".join(names(page)))
    assert sorted(wanted - set(text)) == []


def kinds(error: type[CocosError]) -> Iterator[type[CocosError]]:
    yield error
    for below in error.__subclasses__():
        yield from kinds(below)


def test_every_exit_code_is_in_the_table() -> None:
    text = (OPERATE / "failures.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d+) \|.*\|(.*)\|$", text, re.MULTILINE))
    for error in kinds(CocosError):
        if error.__module__ == errors.__name__:
            assert f"`{error.code}`" in rows[str(error.exit_code)], error.__name__


def test_policies_may_call_what_the_page_says() -> None:
    text = (ROOT / "docs" / "policies.md").read_text("utf-8")
    table = text.partition("## What policies may call")[2].partition("## ")[0]
    assert set(re.findall(r"`([a-z0-9_.]+)`", table)) == builtins.ALLOWED.keys()
