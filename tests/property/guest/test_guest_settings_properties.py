# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in the files that a host writes: settings, or an error of ours."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cocos.attestation_agent.config import ConfigFile as AgentFile
from cocos.cli._common import load_settings
from cocos.confidential_data_hub.config import ConfigFile as HubFile
from cocos.confidential_data_hub.config import Settings as HubSettings
from cocos.confidential_data_hub.credentials import of_command_line
from cocos.errors import ConfigError, FormatError
from cocos.keyprovider.config import Settings as ProviderSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3)
    ),
)
TEXTS = st.sampled_from(
    ["cc_kbc", "offline_fs_kbc", "http://x", "http://[", "kbs:///a/b/c", "/run", "..", "0.0.0.0:1"]
) | st.text(max_size=20)
TABLES = st.dictionaries(
    st.sampled_from(["name", "url", "kbs_cert", "kbs", "coco_as", "level", "init_pcr", "path"]),
    TEXTS | JSON,
    max_size=3,
)
SHAPES: list[type[BaseModel]] = [AgentFile, HubFile, HubSettings, ProviderSettings]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__module__)
@given(data=st.data())
def test_any_file_is_settings_or_an_error_of_ours(shape: type[BaseModel], data: Any) -> None:
    names = st.sampled_from([*shape.model_fields, "other"])
    values = data.draw(st.dictionaries(names, TABLES | TEXTS | JSON | st.lists(TABLES), max_size=4))
    with tempfile.NamedTemporaryFile(suffix=".json") as file, contextlib.suppress(ConfigError):
        Path(file.name).write_text(json.dumps(values))
        found = load_settings(shape, file=Path(file.name), flags={})
        if isinstance(found, HubSettings):
            assert not found.skip_sealed_secret_verification or (
                found.insecure_skip_sealed_secret_verification
            )


@given(
    text=st.text(max_size=80)
    | st.lists(TEXTS).map(lambda words: "cdh.kbs_resources=" + "::".join(words))
)
def test_any_command_line_names_credentials_or_is_refused(text: str) -> None:
    with contextlib.suppress(FormatError):
        assert all(set(each) == {"resource_uri", "path"} for each in of_command_line(text))
