# SPDX-License-Identifier: Apache-2.0
"""Collateral: fetched from a server on loopback, kept, carried elsewhere, judged by its time."""

import asyncio
import datetime as dt
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from _snp import Chip, revocation_list
from typer.testing import CliRunner

from cocos._clock import system_clock
from cocos.cli.owner.command import app
from cocos.clients.makers.amd import AmdService, path_of
from cocos.errors import (
    EvidenceError,
    FormatError,
    NotFoundError,
    ProtocolError,
    UnreachableError,
    UsageError,
)
from cocos.host.collateral import CollateralFolder, default_folder
from cocos.verifiers.collateral import Item

NOW = system_clock()
YEAR = dt.timedelta(days=365)
CRL = "amd/crl/vcek/milan"
VCEK = f"amd/vcek/turin/{'0123456789abcdef'}/bl01_tee00_snp04_ucode75_fmc03"
LIST = revocation_list(1, end=NOW + YEAR)


@contextmanager
def service(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, the last one for ever; and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(url: str) -> AmdService:
    return AmdService(clock=lambda: NOW, url=url, pause=0)


async def test_who_is_busy_is_asked_again() -> None:
    with service((429, b""), (503, b""), (200, LIST)) as (url, asked):
        item = await client(url).fetch(CRL)
    assert item.data == LIST
    assert item.not_after == (NOW + YEAR).replace(microsecond=0)
    assert asked == ["/vcek/v1/Milan/crl"] * 3


async def test_who_stays_busy_is_left_alone() -> None:
    with service((429, b"")) as (url, asked), pytest.raises(UnreachableError):
        await client(url).fetch(CRL)
    assert len(asked) == 5


async def test_the_same_at_the_same_time_is_fetched_once() -> None:
    with service((200, LIST)) as (url, asked):
        amd = client(url)
        items = await asyncio.gather(*(amd.fetch(CRL) for _ in range(20)))
    assert {item.data for item in items} == {LIST}
    assert len(asked) == 1


async def test_answers_that_are_none() -> None:
    late = revocation_list(end=NOW - dt.timedelta(days=1))
    for body in (b"", b"x", Chip().certificate(), late):
        with service((200, body)) as (url, _), pytest.raises(ProtocolError):
            await client(url).fetch(CRL)
    with service((404, b"")) as (url, _), pytest.raises(NotFoundError):
        await client(url).fetch(CRL)
    with service((302, b"")) as (url, _), pytest.raises(ProtocolError):
        await client(url).fetch(CRL)


def test_where_things_are() -> None:
    assert path_of(VCEK) == (
        "/vcek/v1/Turin/0123456789abcdef?fmcSPL=03&blSPL=01&teeSPL=00&snpSPL=04&ucodeSPL=75"
    )
    for name in ("", "amd", "amd/crl/vcek/rome", "intel/tcb", f"{VCEK}&x=1", f"{CRL}\n"):
        with pytest.raises(UsageError):
            path_of(name)


def run(*words: str) -> Any:
    result = CliRunner().invoke(app, ["collateral", *words, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_from_the_network_to_a_machine_without(tmp_path: Path) -> None:
    here, there, file = str(tmp_path / "here"), str(tmp_path / "there"), str(tmp_path / "c.tar")
    with service((200, LIST)) as (url, _):
        (fetched,) = run("fetch", CRL, "--collateral", here, "--amd-url", url)
    assert fetched["usable"] is True
    assert run("export", file, "--collateral", here) == [fetched]
    assert run("import", file, "--collateral", there) == [fetched]
    assert run("list", "--collateral", there) == [fetched]
    folder = CollateralFolder(Path(there))
    assert folder.get(CRL, NOW) == LIST
    with pytest.raises(EvidenceError, match="past its time"):
        raise_first(folder, NOW + 2 * YEAR)
    with pytest.raises(NotFoundError):
        run("export", file, "--collateral", str(tmp_path / "empty"))


def raise_first(folder: CollateralFolder, now: dt.datetime) -> None:
    try:
        folder.get(CRL, now)
    except EvidenceError as error:
        raise EvidenceError(error.findings[0].problem) from error


def test_who_has_no_home_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert default_folder() == Path("/var/lib/cocos/collateral")


def test_an_import_replaces_nothing_younger(tmp_path: Path) -> None:
    old, new = CollateralFolder(tmp_path / "old"), CollateralFolder(tmp_path / "new")
    old.put(CRL, Item(b"old", NOW - YEAR, NOW + YEAR))
    new.put(CRL, Item(b"new", NOW, NOW + YEAR))
    file = str(tmp_path / "c.tar")
    run("export", file, "--collateral", str(tmp_path / "old"))
    run("import", file, "--collateral", str(tmp_path / "new"))
    assert new.get(CRL, NOW) == b"new"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "amd/../../x", "amd"])
def test_archives_reach_no_other_place(tmp_path: Path, name: str) -> None:
    file = tmp_path / "c.tar"
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(FormatError):
        run("import", str(file), "--collateral", str(tmp_path / "there"))
    for data in (b"", b"x" * 2000):
        file.write_bytes(data)
        with pytest.raises(FormatError):
            run("import", str(file), "--collateral", str(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_a_file_that_somebody_broke_is_missing(tmp_path: Path) -> None:
    folder = CollateralFolder(tmp_path)
    folder.put(CRL, Item(b"x", NOW, NOW + YEAR))
    (file,) = tmp_path.rglob("*.item")
    for data in (b"", b"{}", b"{}\nx", b'{"fetched":"2026-01-01T00:00:00","not_after":"2026-01-01T00:00:00"}\nx'):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(EvidenceError) as caught:
            folder.get(CRL, NOW)
        assert caught.value.hint == f"cocos-cli collateral fetch {CRL}"
