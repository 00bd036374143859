# SPDX-License-Identifier: Apache-2.0
"""Fetches what makers publish, by the names of :mod:`cocos.verifiers.collateral`.

Whether it is genuine is the verifiers' business, each time it is used. Here it is only
looked at for how long it may be kept.
"""

import asyncio
import datetime as dt
import re
from typing import Final

from cryptography import x509

from cocos._clock import Clock
from cocos.clients._http import HttpServer
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import NotFoundError, ProtocolError, UnreachableError, UsageError, retry_after
from cocos.host.collateral import MAX_BYTES
from cocos.verifiers.collateral import Item

AMD_URL: Final = "https://kdsintf.amd.com"
_PRODUCTS: Final = {"milan": "Milan", "genoa": "Genoa", "turin": "Turin"}
_VCEK: Final = re.compile(
    r"amd/vcek/(milan|genoa|turin)/([0-9a-f]{128}|[0-9a-f]{16})"
    r"/bl(\d{2,3})_tee(\d{2,3})_snp(\d{2,3})_ucode(\d{2,3})(?:_fmc(\d{2,3}))?",
    re.ASCII,
)
_CRL: Final = re.compile(r"amd/crl/(vcek|vlek)/(milan|genoa|turin)", re.ASCII)
_USER_AGENT: Final = "cocos-cli/0.1.0"
_OK: Final = 200
_NOT_FOUND: Final = 404
_BUSY: Final = 429
_SERVER_ERROR: Final = 500
_TRIES: Final = 5
_LONGEST_PAUSE: Final = 60.0


def path_of(name: str) -> str:
    """Return where AMD's key distribution service has something.

    Raises:
        UsageError: it is nothing of AMD's.
    """
    if found := _CRL.fullmatch(name):
        return f"/{found[1]}/v1/{_PRODUCTS[found[2]]}/crl"
    if found := _VCEK.fullmatch(name):
        product, chip, bootloader, tee, snp, microcode, fmc = found.groups()
        levels = f"blSPL={bootloader}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={microcode}"
        first = "" if fmc is None else f"fmcSPL={fmc}&"
        return f"/vcek/v1/{_PRODUCTS[product]}/{chip}?{first}{levels}"
    raise UsageError(
        f"{name} cannot be fetched by this program",
        hint="amd/vcek/… as a refusal names it, amd/crl/vcek/milan; or import a file",
    )


class AmdService:
    """AMD's key distribution service, or a mirror of it.

    Equal names asked for at the same time are fetched once. Who answers that he is busy
    (429, 5xx) is asked again, a few times, as late as he says or twice as late each time.

    Args:
        clock: What is fetched at.
        url: Of the service.
        pause: Seconds before the second try.
    """

    def __init__(self, *, clock: Clock, url: str = AMD_URL, pause: float = 1.0) -> None:
        self._clock = clock
        self._server = HttpServer(
            url, what="AMD's key distribution service", user_agent=_USER_AGENT
        )
        self._pause = pause
        self._running: dict[str, asyncio.Task[Item]] = {}

    async def fetch(self, name: str) -> Item:
        """Return what has this name.

        Raises:
            UsageError: nothing of AMD's has it.
            NotFoundError: AMD does not have it.
            UnreachableError: the service does not answer, or only that it is busy.
            ProtocolError: what it answered is not what was asked for.
        """
        path = path_of(name)
        task = self._running.get(name)
        if task is None:
            task = asyncio.create_task(self._fetch(name, path))
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(task)

    async def _fetch(self, name: str, path: str) -> Item:
        pause = self._pause
        for _ in range(_TRIES):
            answer = await self._server.request("GET", path)
            if answer.status == _OK:
                return item_of(name, answer.body, self._clock())
            if answer.status == _NOT_FOUND:
                raise NotFoundError(f"AMD has no {name}")
            if answer.status != _BUSY and answer.status < _SERVER_ERROR:
                raise ProtocolError(f"AMD's service answers {answer.status} for {name}")
            asked = retry_after(answer.headers.get("retry-after"))
            await asyncio.sleep(min(_LONGEST_PAUSE, pause if asked is None else asked))
            pause *= 2
        raise UnreachableError(f"AMD's service is busy; {name} was not fetched")


def item_of(name: str, data: bytes, now: dt.datetime) -> Item:
    """Return what was fetched with the time until which it may be used.

    Raises:
        ProtocolError: it is not what the name says, or past its time.
    """
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"{name} has {len(data)} bytes; {MAX_BYTES} are allowed")
    try:
        if _CRL.fullmatch(name):
            end = x509.load_der_x509_crl(data).next_update_utc
        else:
            end = x509.load_der_x509_certificate(data).not_valid_after_utc
    except UNREADABLE as error:
        raise ProtocolError(f"what came as {name} does not parse") from error
    if end is None or end <= now:
        raise ProtocolError(f"what came as {name} is past its time")
    return Item(data, now, end)
