# SPDX-License-Identifier: Apache-2.0
"""Installing the toolbox: whole or not at all, once, whoever else wants it.

``mmdebstrap`` is a script here: the real one needs the network, and runs when set-up does.
"""

import asyncio
import os
from pathlib import Path

import pytest

from cocos.errors import CocosError, IntegrityError, ProcessError, ToolMissingError
from cocos.host.tools import toolbox
from cocos.host.tools.toolbox import Toolbox

pytestmark = pytest.mark.integration

SCRIPT = """#!/bin/sh
echo run >> {count}
for last; do :; done
mkdir -p {root}/usr/bin {root}/usr/lib/arch {root}/usr/lib64 {root}/etc
echo program > {root}/usr/bin/skopeo
echo program > {root}/usr/bin/docker-registry
echo other > {root}/usr/bin/passwd
echo secret > {root}/etc/shadow
echo library > {root}/usr/lib/arch/libc.so.6
echo loader > {root}/usr/lib/arch/ld-linux-arch.so.2
ln -sf ../lib/arch/ld-linux-arch.so.2 {root}/usr/lib64/ld-linux-arch.so.2
{more}
exec tar -C {root} -cf "$last" .
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cocos" / "tools"


def install_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> Path:
    count, binaries = tmp_path / "count", tmp_path / "bin"
    binaries.mkdir()
    script = binaries / "mmdebstrap"
    script.write_text(SCRIPT.format(count=count, root=tmp_path / "root", more=more))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    return count


async def good(box: Toolbox) -> None:
    assert box.argv("skopeo")


async def bad(box: Toolbox) -> None:
    raise ToolMissingError(f"{box.folder.name} does not do")


async def test_two_at_once_install_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = install_script(tmp_path, monkeypatch)
    assert toolbox.find() is None
    one, two = await asyncio.gather(toolbox.install(good), toolbox.install(good))
    assert one == two == toolbox.find()
    assert count.read_text().count("run") == 1
    loader = cache / "trixie/usr/lib/arch/ld-linux-arch.so.2"
    assert one.argv("skopeo") == (
        str(loader),
        "--library-path",
        str(loader.parent),
        str(cache / "trixie/usr/bin/skopeo"),
    )
    files = {str(path.relative_to(one.folder)) for path in one.folder.rglob("*") if path.is_file()}
    assert "usr/bin/docker-registry" in files
    assert not files & {"usr/bin/passwd", "etc/shadow", "all.tar"}
    with pytest.raises(ToolMissingError, match="passwd is not in"):
        one.argv("passwd")


@pytest.mark.parametrize(
    ("more", "check", "kind"),
    [
        ("exit 7", good, ProcessError),
        ("", bad, ToolMissingError),
        ("ln -sf /etc/passwd {root}/usr/lib/arch/libevil.so", good, IntegrityError),
    ],
)
async def test_a_failure_leaves_nothing(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    more: str,
    check: object,
    kind: type[CocosError],
) -> None:
    assert callable(check)
    install_script(tmp_path, monkeypatch, more.format(root=tmp_path / "root"))
    with pytest.raises(kind):
        await toolbox.install(check)
    assert os.listdir(cache) == ["lock"]  # noqa: PTH208 - a list of names
    assert toolbox.find() is None
