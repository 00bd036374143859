# SPDX-License-Identifier: Apache-2.0
"""What the metrics of a key broker count, and what they never say."""

import re
from pathlib import Path

import httpx
from _kbs import URL, kbs_in_process

from cocos.crypto import admin_jwt


async def test_sizes_are_counted_apart_and_no_secret_is_named(tmp_path: Path) -> None:
    async with kbs_in_process(tmp_path) as kbs:
        token = admin_jwt.mint(kbs.admin_key, now=kbs.now)
        admin = {"Authorization": f"Bearer {token}"}
        path = "/kbs/v0/resource/default/key/hidden-name"
        async with httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http:
            await http.post(path, content=bytes(300), headers=admin)
            refused = await http.get(path)
            await http.request("BREW", f"{path}-brewed")
            text = (await http.get("/metrics")).text

    def value(name: str) -> float:
        return float(re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])

    assert value("kbs_http_request_size_bytes_sum") == 300
    assert value("kbs_http_response_size_bytes_sum") > len(refused.content)
    assert value("kbs_http_request_duration_seconds_count") == 3
    assert value("kbs_http_active_connections") == 0
    assert value("kbs_resource_writes_total") == 1
    assert "hidden-name" not in text
    assert "BREW" not in text
