# SPDX-License-Identifier: Apache-2.0
"""Ways for our HTTP clients that do not lead over the network: applications and scripts."""

from collections.abc import Mapping

import httpx

from cocos.clients._transport import Answer, Headers, TooMuchError, Transport


class Through(Transport):
    """Sends through one of httpx's transports, to where ``url`` names."""

    def __init__(self, transport: httpx.AsyncBaseTransport, url: str = "http://kbs.test") -> None:
        self._transport = transport
        self._origin = httpx.URL(url)

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes, limit: int
    ) -> Answer:
        url = self._origin.copy_with(raw_path=target.encode())
        request = httpx.Request(method, url, headers=dict(headers), content=content)
        response = await self._transport.handle_async_request(request)
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                raise TooMuchError
        return Answer(response.status_code, Headers(response.headers.multi_items()), bytes(body))

    async def close(self) -> None:
        pass
