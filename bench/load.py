# SPDX-License-Identifier: Apache-2.0
"""Clients of a KBS, as lean as they can be: a process of their own, sockets, nothing decrypted.

Prints as JSON how long each call took, in seconds, and how long all of them.
"""

import argparse
import asyncio
import base64
import itertools
import json
import time
from urllib.parse import urlsplit

from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs.protocol import PROTOCOL_VERSION, EcKey, key_members, report_data, runtime_data

KEY = TeeKeyPair.generate().public_jwk()
TEE_KEY = EcKey(KEY["crv"], KEY["alg"], KEY["x"], KEY["y"])
RESOURCE = "/kbs/v0/resource/default/key/bench"
HELLO = json.dumps({"version": PROTOCOL_VERSION, "tee": "sample", "extra-params": ""}).encode()


class Connection:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def call(self, method: str, path: str, headers: str, body: bytes) -> tuple[str, bytes]:
        """Return head and body of an answer that has to be 200."""
        head = f"{method} {path} HTTP/1.1\r\nHost: kbs\r\nContent-Length: {len(body)}\r\n{headers}"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.partition("content-length: ")[2].partition("\r\n")[0] or "0")
        content = await self._reader.readexactly(length)
        if not answer.startswith("http/1.1 200"):
            raise SystemExit(f"{method} {path}: {answer}{content.decode()}")
        return answer, content


class Client:
    """Asks one replica after the other."""

    def __init__(self, number: int, connections: list[Connection], token: str) -> None:
        self._number = number
        self._next = itertools.cycle(connections)
        self._admin = f"Authorization: Bearer {token}\r\n"
        self._cookie = ""

    async def _call(self, method: str, path: str, headers: str, body: bytes) -> tuple[str, bytes]:
        return await next(self._next).call(method, path, headers, body)

    async def attest(self) -> None:
        """Shake hands."""
        head, body = await self._call("POST", "/kbs/v0/auth", "", HELLO)
        session = head.partition("kbs-session-id=")[2].partition(";")[0]
        self._cookie = f"Cookie: kbs-session-id={session}\r\n"
        nonce = json.loads(body)["nonce"]
        bound = base64.b64encode(report_data(runtime_data(nonce, TEE_KEY, ""))).decode()
        evidence = {"svn": "1", "report_data": bound}
        document = {
            "runtime-data": {"nonce": nonce, "tee-pubkey": key_members(TEE_KEY)},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        await self._call("POST", "/kbs/v0/attest", self._cookie, json.dumps(document).encode())

    async def get(self) -> None:
        """Get the resource, after a handshake if there was none."""
        if not self._cookie:
            await self.attest()
        await self._call("GET", RESOURCE, self._cookie, b"")

    async def handshake(self) -> None:
        """Shake hands and get the resource."""
        await self.attest()
        await self.get()

    async def write(self) -> None:
        """Store a resource as administrator, always the same one."""
        path = f"/kbs/v0/resource/default/written/by-{self._number}"
        await self._call("POST", path, self._admin, bytes(32))


async def run(arguments: argparse.Namespace) -> None:
    """Have the clients work, and print what they saw."""
    urls = [urlsplit(url) for url in arguments.urls.split(",")]
    clients = [
        Client(
            number,
            [Connection(*await asyncio.open_connection(url.hostname, url.port)) for url in urls],
            arguments.token,
        )
        for number in range(arguments.clients)
    ]
    times: list[float] = []
    until = 0.0

    async def work(client: Client) -> None:
        what = getattr(client, arguments.what)
        while (begin := time.perf_counter()) < until:
            await what()
            times.append(time.perf_counter() - begin)

    await asyncio.gather(*(getattr(client, arguments.what)() for client in clients))
    print("ready", flush=True)
    begin = time.perf_counter()
    until = begin + arguments.seconds
    await asyncio.gather(*map(work, clients))
    print(json.dumps({"seconds": time.perf_counter() - begin, "times": times}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["handshake", "get", "write"])
    parser.add_argument("--urls", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--token", default="")  # of a KBS that lives as long as the measurement
    asyncio.run(run(parser.parse_args()))
