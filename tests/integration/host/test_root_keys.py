# SPDX-License-Identifier: Apache-2.0
"""Keys that open a storage: in a file, a variable, a TPM, a PKCS#11 device."""

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from _tpm import Tpm, TpmCa, running_tpm

from cocos.cli.kbs.storage import root_key_source
from cocos.crypto.envelope import DataKey, LocalRootKey
from cocos.errors import ConfigError, IntegrityError
from cocos.host import process
from cocos.stores.keyring import RootKeySource
from cocos.stores.opening import open_storage
from cocos.stores.sql import storage_url

pytestmark = pytest.mark.integration

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "1234"
KEY = DataKey.generate()


async def same_key(one: RootKeySource, two: RootKeySource) -> bool:
    """Tell whether what one wraps the other unwraps."""
    wrapping, unwrapping = await one.load(), await two.load()
    assert wrapping is not None
    assert unwrapping is not None
    try:
        return await unwrapping.unwrap(KEY.id, await wrapping.wrap(KEY)) == KEY
    except IntegrityError:
        return False


async def test_a_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "storage.key"
    source = root_key_source(f"file:{path}")
    assert await source.load() is None
    await asyncio.gather(*(source.create() for _ in range(8)))
    assert [file.name for file in path.parent.iterdir()] == ["storage.key"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(path.read_bytes())) == 32
    assert await same_key(source, source)
    raw = tmp_path / "raw"
    raw.write_bytes(base64.b64decode(path.read_bytes()))
    assert await same_key(source, root_key_source(f"file:{raw}"))
    raw.write_bytes(bytes(31))
    with pytest.raises(ConfigError, match="31 bytes long, not 32"):
        await root_key_source(f"file:{raw}").load()


async def test_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = root_key_source("env:KBS_TEST_KEY")
    for work in (source.load, source.create):
        with pytest.raises(ConfigError, match="KBS_TEST_KEY"):
            await work()
    monkeypatch.setenv("KBS_TEST_KEY", base64.b64encode(bytes(32)).decode())
    found = await source.load()
    assert found is not None
    assert await LocalRootKey(bytes(32)).unwrap(KEY.id, await found.wrap(KEY)) == KEY
    monkeypatch.setenv("KBS_TEST_KEY", "hunter2")
    with pytest.raises(ConfigError) as caught:
        await source.load()
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "file", "file:", "storage.key", "https://kms", "env:"),
        *("tpm:/x?pcrs=a", "tpm:/x?pcrs=24", "tpm:/x?other=1"),
        *("pkcs11:token=a", "pkcs11:token=a;token=b?module-path=/x"),
        "pkcs11:token=a?module-path=/x&pin-value=1234",
    ],
)
def test_what_names_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        root_key_source(text)
    assert "1234" not in caught.value.message


# --- TPM -----------------------------------------------------------------------------


@pytest.fixture
async def tpm(tmp_path: Path) -> AsyncIterator[Tpm]:
    state = await TpmCa(tmp_path / "ca").manufacture()
    async with running_tpm(state, tmp_path / "tpm") as running:
        yield running


async def test_a_tpm_opens_what_it_sealed(tmp_path: Path, tpm: Tpm) -> None:
    tcti = f"tcti=swtpm:path={tpm.folder}/tpm.sock"
    free, bound = tmp_path / "free", tmp_path / "bound"
    sources = [
        root_key_source(f"tpm:{free}?{tcti}"),
        root_key_source(f"tpm:{bound}?pcrs=7,14&{tcti}"),
    ]
    for source in sources:
        assert await source.load() is None
        await source.create()
        assert await same_key(source, source)
        await source.create()  # another program was quicker: its key stays
    assert not await same_key(*sources)
    assert stat.S_IMODE(bound.stat().st_mode) == 0o600
    await tpm.measure()
    await tpm.extend(14, bytes(32))
    assert await same_key(sources[0], sources[0])
    with pytest.raises(ConfigError, match="the TPM does not do its part"):
        await sources[1].load()


async def test_another_tpm_does_not_open_it(tmp_path: Path, tpm: Tpm) -> None:
    file = tmp_path / "key"
    await root_key_source(f"tpm:{file}?tcti=swtpm:path={tpm.folder}/tpm.sock").create()
    state = await TpmCa(tmp_path / "ca2").manufacture()
    async with running_tpm(state, tmp_path / "tpm2") as other:
        with pytest.raises(ConfigError, match="its part"):
            await root_key_source(f"tpm:{file}?tcti=swtpm:path={other.folder}/tpm.sock").load()
    file.write_text("junk")
    with pytest.raises(ConfigError, match="not a key that a TPM has sealed"):
        await root_key_source(f"tpm:{file}").load()


async def test_without_a_tpm_the_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the TPM does not do its part"):
        await root_key_source(f"tpm:{tmp_path}/key?tcti=swtpm:path=/nowhere").create()


# --- PKCS#11 -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a software token ``kbs``, and its PIN in a file."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "pin").write_text(f"{PIN}\n")
    (folder / "conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    # The library reads it once, when it is loaded.
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    words = ["--init-token", "--free", "--label", "kbs", "--pin", PIN, "--so-pin", "56789"]
    tool = process.find_tool("softhsm2-util", hint="apt-get install softhsm2")
    asyncio.run(process.run([tool, *words], env={"SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}))
    yield folder
    del os.environ["SOFTHSM2_CONF"]


def uri(token: Path, name: str, *, pin: str = "pin") -> str:
    return f"pkcs11:token=kbs;object={name}?module-path={MODULE}&pin-source=file:{token}/{pin}"


async def test_a_device_wraps_with_a_key_that_it_never_shows(token: Path) -> None:
    one, two = root_key_source(uri(token, "one")), root_key_source(uri(token, "t%77o"))
    for source in (one, two):
        assert await source.load() is None
        await source.create()
        assert await same_key(source, source)
    assert str(two) == "pkcs11:token=kbs;object=two"
    assert not await same_key(one, two)
    root = await one.load()
    assert root is not None
    wrapped = await root.wrap(KEY)
    assert KEY.secret not in wrapped
    for key_id, record in (
        (bytes(8), wrapped),
        (KEY.id, wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
        (KEY.id, b""),
    ):
        with pytest.raises(IntegrityError):
            await root.unwrap(key_id, record)


async def test_what_is_wrong_with_a_device_is_said(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (token / "wrong").write_text("9999")
    with pytest.raises(ConfigError, match="PinIncorrect") as caught:
        await root_key_source(uri(token, "one", pin="wrong")).load()
    assert "9999" not in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(ConfigError, match="No token"):
        await root_key_source(uri(token, "one").replace("=kbs", "=other")).load()
    with pytest.raises(ConfigError, match="/nowhere"):
        await root_key_source("pkcs11:token=kbs?module-path=/nowhere").load()
    with pytest.raises(ConfigError, match="PIN"):
        await root_key_source(uri(token, "one", pin="absent")).load()
    monkeypatch.setenv("KBS_PKCS11_PIN", PIN)
    without = uri(token, "variable").partition("&pin-source")[0]
    await root_key_source(without).create()
    assert await root_key_source(without).load() is not None


async def test_a_storage_opens_with_its_device_alone(token: Path, tmp_path: Path) -> None:
    url = storage_url(str(tmp_path))
    async with open_storage(url, [root_key_source(uri(token, "root"))]) as storage:
        first = storage.keyring.current
    async with open_storage(url, [root_key_source(uri(token, "root"))]) as storage:
        assert storage.keyring.current == first
    other = root_key_source(uri(token, "not-it"))
    await other.create()
    with pytest.raises(ConfigError, match="sealed with another key"):
        async with open_storage(url, [other]):
            pass
