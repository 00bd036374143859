# SPDX-License-Identifier: Apache-2.0
"""The policies in docs/policies.md, as owners copy them."""

import re
from pathlib import Path

from cocos.wire.manifest.event import ComputationEvent

PAGE = Path(__file__).resolve().parents[3] / "docs" / "policies.md"
_WORD = re.compile(r'"[A-Z]+_[A-Z0-9]+"')


def documented(heading: str, number: int = 0, **values: str) -> str:
    """Return a policy of a section, with the words in capitals replaced."""
    text = _written(heading, number)
    for name, value in values.items():
        assert f'"{name}"' in text, f"{heading} has no {name}"
        text = text.replace(f'"{name}"', f'"{value}"')
    assert not _WORD.search(text), "a word in capitals is left"
    return text


def agreed(heading: str, event: ComputationEvent, number: int = 0) -> str:
    """Return a policy of a section for one computation, as its owner fills it in."""
    values = {name.upper(): value for name, value in event.claims().items()}
    (values["DATASET_DIGEST"],) = values.pop("DATASET_DIGESTS")
    wanted = {found[1:-1] for found in _WORD.findall(_written(heading, number))}
    return documented(heading, number, **{name: values[name] for name in wanted})


def _written(heading: str, number: int) -> str:
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    text = _rego(section)[number]
    return text if "\nfindings " in text else f"{text}\n{_shared_findings()}"


def _shared_findings() -> str:
    """Return the rule that the page asks owners to add to policies without their own."""
    (text,) = (each for each in _rego(PAGE.read_text("utf-8")) if each.startswith("findings "))
    return text


def _rego(text: str) -> list[str]:
    return re.findall(r"^```rego\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
