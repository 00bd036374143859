# SPDX-License-Identifier: Apache-2.0
"""Whatever is insecure has that in its name, and is off until somebody asks for it by it."""

import importlib
from pathlib import Path

import pytest
from pydantic import BaseModel

import cocos

FOLDER = Path(cocos.__file__).parent
CONFIGS = sorted(FOLDER.glob("**/config.py"))


def settings_of(file: Path) -> list[type[BaseModel]]:
    name = ".".join(file.relative_to(FOLDER.parent).with_suffix("").parts)
    members = vars(importlib.import_module(name)).values()
    return [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(FOLDER)))
def test_nothing_insecure_is_the_default(file: Path) -> None:
    for settings in settings_of(file):
        for name, field in settings.model_fields.items():
            if "insecure" in name:
                default = field.get_default(call_default_factory=True)
                assert default is False or default == {}, f"{settings.__name__}.{name}"


def test_the_settings_are_found() -> None:
    named = {name for file in CONFIGS for each in settings_of(file) for name in each.model_fields}
    assert {"insecure_api", "insecure_trust_root", "insecure_allow_sample", "insecure_ctr"} <= named
