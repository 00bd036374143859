# SPDX-License-Identifier: Apache-2.0
"""Which KBS a key provider asks: what it is told, or nothing at all, never something else."""

from typing import Any

import pytest
from pydantic import ValidationError

from cocos.keyprovider.config import Settings

KBS, OTHER = "http://127.0.0.1:8080", "http://127.0.0.1:8081"


@pytest.mark.parametrize(
    ("told", "address", "offline"),
    [
        ({}, None, False),
        ({"kbs": KBS}, KBS, False),
        ({"aa_kbc_params": f"cc_kbc::{KBS}"}, KBS, False),
        ({"kbs": KBS, "aa_kbc_params": f"cc_kbc::{KBS}"}, KBS, False),
        ({"kbs": KBS, "aa_kbc_params": "cc_kbc::null"}, KBS, False),
        ({"aa_kbc_params": "cc_kbc::null"}, None, False),
        ({"aa_kbc_params": "offline_fs_kbc::null"}, None, True),
    ],
)
def test_whom_it_asks(told: dict[str, Any], address: str | None, *, offline: bool) -> None:
    settings = Settings(**told)
    assert settings.address == address
    assert settings.offline is offline


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"kbs": "127.0.0.1"}, "URL"),
        ({"kbs": "file:///x"}, "URL"),
        ({"aa_kbc_params": "cc_kbc"}, "none of cc_kbc::URL"),
        ({"aa_kbc_params": f"kbc::{KBS}"}, "none of cc_kbc::URL"),
        ({"kbs": KBS, "aa_kbc_params": f"cc_kbc::{OTHER}"}, "name different KBSs"),
        ({"kbs": KBS, "aa_kbc_params": "offline_fs_kbc::null"}, "name different KBSs"),
        ({"socket": "192.0.2.1:50011"}, "from other machines"),
        ({"kbs_url": KBS}, "Extra inputs"),
    ],
)
def test_what_names_no_kbs_is_refused_at_once(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Settings(**told)
    (error,) = caught.value.errors()
    # It names the setting, where one alone is wrong.
    assert error["loc"] == (() if len(told) > 1 else tuple(told))


def test_settings_do_not_change() -> None:
    settings = Settings(kbs=KBS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.kbs = OTHER
