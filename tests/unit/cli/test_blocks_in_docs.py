# SPDX-License-Identifier: Apache-2.0
"""Every shell block of a page runs in a test, or says beside it why it does not."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
NO_SHELL = {"", "text", "json", "rego", "toml", "proto"}
REASON_WORDS = 2

_BLOCK = re.compile(r"^( *)(```+|~~~+)([^\n]*)\n(.*?)^ *\2 *$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(rf"^(?:\$ |(?:{'|'.join(map(re.escape, PROGRAMS))}) )", re.MULTILINE)


def doubtful(text: str, *, runs: bool) -> list[str]:
    """Return what is wrong with the blocks of a page.

    Args:
        text: The page.
        runs: Whether a test runs the ``bash`` blocks of this page.
    """
    found = []
    for indent, fence, about, body in _BLOCK.findall(text):
        language, _, reason = about.strip().partition(" ")
        first = body.partition("\n")[0]
        if fence != "```":
            found.append(f"{fence}: no test finds a block with this fence: {first}")
        elif language == "sh":
            if len(reason.split()) < REASON_WORDS:
                found.append(f"does not run, and does not say why: {first}")
        elif language == "bash":
            if not runs or indent or reason not in {"", "cvm"}:
                found.append(f"no test runs this: {first}")
        elif language not in NO_SHELL or reason:
            found.append(f"{about}: not a language of these pages: {first}")
        elif not language and _COMMAND.search(body):
            found.append(f"commands in a block without a language: {first}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_shell_block_runs_or_says_why_not(page: Path) -> None:
    assert doubtful(page.read_text("utf-8"), runs=page in DOCS) == []


def test_pages_have_blocks() -> None:
    assert sum(len(_BLOCK.findall(page.read_text("utf-8"))) for page in PAGES) > 100


@pytest.mark.parametrize(
    "block",
    [
        "```sh\nls\n```",
        "```sh no\nls\n```",
        "```shell because it does not\nls\n```",
        "```console\n$ ls\n```",
        "```bash not now\nls\n```",
        "```\nkbs --storage x\n```",
        "```\n$ ls\n```",
        "   ```sh\n   ls\n   ```",
        "1. so\n\n   ```bash\n   ls\n   ```",
        "~~~sh needs a TPM\nls\n~~~",
        "````sh needs a TPM\nls\n````",
    ],
)
def test_a_block_that_nobody_runs_is_found(block: str) -> None:
    assert len(doubtful(f"Words.\n\n{block}\n\nWords.\n", runs=True)) == 1


def test_what_no_test_runs_is_no_bash() -> None:
    assert doubtful("```bash\nls\n```\n", runs=False)
    assert not doubtful("```bash\nls\n```\n", runs=True)
    assert not doubtful("```sh needs a TPM\nls\n```\n", runs=False)
