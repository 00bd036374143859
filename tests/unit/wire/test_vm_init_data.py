# SPDX-License-Identifier: Apache-2.0
"""The KBS that a guest's configuration names: that one, none, or a refusal."""

from typing import Any

import pytest
import trustme

from cocos.errors import FormatError
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.vm_init_data import kbs_of, kbs_of_data_hub

URL = "https://kbs.example:8080"
ADDRESS = KbsAddress.parse(URL)
PEM = trustme.CA().cert_pem.bytes().decode()
HUB = {"name": "cc_kbc", "url": URL}


def test_the_kbs_of_an_attestation_agent() -> None:
    assert kbs_of({}) is None
    assert kbs_of({"token_configs": {}}) is None
    assert kbs_of({"token_configs": 0}) is None, "that is refused where the image unpacks it"
    assert kbs_of({"token_configs": {"kbs": {"url": URL}}}) == ADDRESS
    known = kbs_of({"token_configs": {"kbs": {"url": URL, "cert": PEM}}})
    assert known == ADDRESS.with_ca(PEM) != ADDRESS


@pytest.mark.parametrize("table", [0, "", [], {}, {"url": 1}, {"url": URL, "cert": ["-----BEGIN"]}])
def test_what_is_no_kbs_of_an_attestation_agent(table: Any) -> None:
    with pytest.raises(FormatError, match="in the init data"):
        kbs_of({"token_configs": {"kbs": table}})


def test_the_kbs_of_a_data_hub() -> None:
    assert kbs_of_data_hub({}) is None
    assert kbs_of_data_hub({"kbc": {"name": "cc_kbc"}}) is None
    assert kbs_of_data_hub({"kbc": HUB}) == ADDRESS
    assert kbs_of_data_hub({"kbc": {**HUB, "kbs_cert": PEM}}) == ADDRESS.with_ca(PEM)


@pytest.mark.parametrize(
    "table", [0, "", [], {}, {**HUB, "url": 1}, {**HUB, "name": "offline_fs_kbc"}, {"url": URL}]
)
def test_what_is_no_kbs_of_a_data_hub(table: Any) -> None:
    with pytest.raises(FormatError, match="kbc in the init data"):
        kbs_of_data_hub({"kbc": table})
