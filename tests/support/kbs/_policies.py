# SPDX-License-Identifier: Apache-2.0
"""The policies in docs/policies.md, as owners copy them."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "policies.md"


def documented(heading: str, number: int = 0, **values: str) -> str:
    """Return a policy of a section, with the words in capitals replaced."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    text = re.findall(r"^```rego\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[number]
    for name, value in values.items():
        assert f'"{name}"' in text, f"{heading} has no {name}"
        text = text.replace(f'"{name}"', f'"{value}"')
    assert not re.search(r'"[A-Z]+_[A-Z0-9]+"', text), "a word in capitals is left"
    return str(text)
