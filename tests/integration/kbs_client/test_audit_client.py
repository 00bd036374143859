# SPDX-License-Identifier: Apache-2.0
"""``kbs-client audit`` against a real KBS whose database somebody edits."""

import json
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from _kbs_program import Kbs, start_kbs

from cocos.attesters.sample import InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.host import process
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("kbs-client")
PATH = ResourcePath.parse("default/key/1")


class Auditor:
    """Somebody with the administrator's key, and a folder for what is kept."""

    def __init__(self, kbs: Kbs, folder: Path) -> None:
        self.kbs = kbs
        self.folder = folder

    async def run(self, *words: str | Path) -> process.Completed:
        first: list[str | Path] = [
            PROGRAM,
            "--url",
            self.kbs.url,
            "audit",
            "--auth-private-key",
            self.kbs.key_file,
        ]
        return await process.run([*first, *words], check=False, timeout=60)

    async def output(self, *words: str | Path) -> str:
        done = await self.run(*words)
        assert done.exit_status == 0, done.stderr.decode()
        return done.stdout.decode()

    async def keep(self, name: str, *words: str) -> Path:
        file = self.folder / name
        file.write_text(await self.output(*words))
        return file

    def edit(self, sql: str) -> None:
        """Do what somebody with the disk can do."""
        database = self.folder / "kbs" / "cocos.sqlite3"
        with closing(sqlite3.connect(database, isolation_level=None)) as opened:
            opened.execute(sql)


@pytest.fixture
async def auditor(tmp_path: Path) -> AsyncIterator[Auditor]:
    async with start_kbs(tmp_path, "--insecure-allow-sample") as kbs:
        await kbs.store(PATH, b"secret")
        async with KbsClient(kbs.url, InsecureSampleAttester()) as guest:
            assert await guest.get_resource(ResourceUri.parse(PATH.uri)) == b"secret"
        yield Auditor(kbs, tmp_path)


async def test_show_tells_what_happened(auditor: Auditor) -> None:
    text = await auditor.output("show")
    for words in ("administered", "admin", "released", "sample", "cpu0=affirming", str(PATH)):
        assert words in text
    lines = (await auditor.output("show", "--json", "--event", "released")).splitlines()
    (released,) = map(json.loads, lines)
    assert released["resource"] == str(PATH)
    assert released["seq"] == 3
    assert await auditor.output("show", "--json", "--resource", "x/y/z") == ""
    assert "attested" not in await auditor.output("show", "--after", "2")


async def test_verify_finds_what_was_done_to_it(auditor: Auditor, tmp_path: Path) -> None:
    key = await auditor.keep("audit.pub", "public-key")
    checkpoint = await auditor.keep("checkpoint", "checkpoint")
    pinned = ("--checkpoint-key", key, "--checkpoint", checkpoint)
    assert "3 entries" in await auditor.output("verify", *pinned)
    unpinned = await auditor.output("verify")
    assert "no --checkpoint-key" in unpinned
    assert "no --checkpoint" in unpinned
    assert json.loads(await auditor.output("verify", "--json"))["ok"] is True
    auditor.edit("CREATE TABLE kept AS SELECT * FROM audit")
    for change, problem in (
        ("UPDATE audit SET entry = replace(entry, 'default/key/1', 'default/key/2')", "changed"),
        ("DELETE FROM audit WHERE seq = 2", "entries 2 to 2 are missing"),
        ("UPDATE audit SET checkpoint = NULL", "no checkpoint"),
        ("DELETE FROM audit WHERE seq = 3", "ends earlier"),
    ):
        auditor.edit(change)
        done = await auditor.run("verify", *pinned)
        assert done.exit_status == 65
        assert problem in done.stderr.decode()
        auditor.edit("DELETE FROM audit")
        auditor.edit("INSERT INTO audit SELECT * FROM kept")
    # Whoever cuts the log at both ends of the database is caught by what was kept.
    auditor.edit("DELETE FROM audit WHERE seq = 3")
    auditor.edit("UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit WHERE seq = 2)")
    assert "unknown (no --checkpoint)" in await auditor.output("verify")
    done = await auditor.run("verify", "--json", *pinned)
    assert done.exit_status == 65
    assert json.loads(done.stdout)["findings"][0]["check"] == "audit.cut"


async def test_another_key_is_found(auditor: Auditor, tmp_path: Path) -> None:
    wrong = tmp_path / "admin.pub"  # an Ed25519 key as good as any
    done = await auditor.run("verify", "--checkpoint-key", wrong)
    assert done.exit_status == 77
    assert "the newest checkpoint of the log: not signed by the public key" in done.stderr.decode()


async def test_an_export_is_verified_without_the_kbs(auditor: Auditor, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    key = await auditor.keep("audit.pub", "public-key")
    assert "wrote 3 entries" in await auditor.output("export", file)
    assert "3 entries" in await auditor.output("verify", "--file", file, "--checkpoint-key", key)
    lines = file.read_text().splitlines()
    shutil.copy(file, tmp_path / "whole")
    for changed in (lines[:-1], lines[:1] + lines[2:], [*lines[:2], lines[3], lines[2]]):
        file.write_text("\n".join(changed) + "\n")
        done = await auditor.run("verify", "--file", file, "--checkpoint-key", key)
        assert done.exit_status == 65, changed
    file.write_text("junk\n")
    done = await auditor.run("verify", "--file", file)
    assert done.exit_status == 65
    assert "malformed" in done.stderr.decode()
