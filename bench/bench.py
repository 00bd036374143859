# SPDX-License-Identifier: Apache-2.0
"""``make bench``: what our parts cost, as ratios of two things measured in the same run.

Seconds depend on the machine and on what else it does; a ratio against the same work
without our part mostly does not. Medians; the smallest and the largest value stand beside.
"""

import argparse
import asyncio
import gzip
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cocos._clock import system_clock
from cocos.attesters import detect
from cocos.cli._common import configure_logs
from cocos.clients.kbs import KbsClient
from cocos.crypto import jwe
from cocos.crypto.signing import SigningKey, verify
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire import oci
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourceUri

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from base_image import base_image, buildah_environment  # noqa: E402 - tools/ is no package
from demo_shell import Shell, free_ports  # noqa: E402
from evidence import evidence  # noqa: E402
from kbs import kbs  # noqa: E402
from vms import vms  # noqa: E402

LAYER_BYTES = 64 * 2**20
KEY = "default/key/bench"
_STEP = re.compile(r"^\s*\d+\s+(.*?)\s+([\d.]+) s$", re.MULTILINE)


async def timed(
    what: Callable[[], Awaitable[object]],
    *,
    rounds: int,
    before: Callable[[], object] | None = None,
) -> list[float]:
    """Return how long each of ``rounds`` calls took, in seconds, after one that is not counted."""
    found = []
    for _ in range(rounds + 1):
        if before is not None:
            before()
        begin = time.perf_counter()
        await what()
        found.append(time.perf_counter() - begin)
    return found[1:]


def show(name: str, times: list[float], base: list[float] | None = None) -> None:
    """Print a median with its range, and its ratio to another one."""
    middle = statistics.median(times)
    spread = f"{min(times) * 1e3:8.1f} … {max(times) * 1e3:8.1f}"
    ratio = "" if base is None else f"{middle / statistics.median(base):8.2f} x"
    print(f"  {name:<52}{middle * 1e3:9.1f} ms  ({spread}){ratio}")


def make_image(folder: Path) -> None:
    """Write an OCI layout with one gzip layer that cannot be compressed further."""
    plain = os.urandom(LAYER_BYTES)
    layer = gzip.compress(plain, compresslevel=1, mtime=0)
    config = encode(oci.ImageConfig(oci.RootFs((oci.digest_of(plain),)), "amd64", "linux"))
    manifest = encode(
        oci.Manifest(
            schema_version=2,
            config=oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config)),
            layers=(oci.Descriptor(oci.LAYER_GZIP, oci.digest_of(layer), len(layer)),),
        )
    )
    blobs = {oci.digest_of(blob): blob for blob in (layer, config, manifest)}
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(manifest), len(manifest))
    for path, data in oci.layout_files(blobs, entry).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


async def layers(shell: Shell, folder: Path) -> None:
    """Compare Skopeo's copies of one layer: plain, encrypting, decrypting."""
    print(f"\nSkopeo, one layer of {LAYER_BYTES // 2**20} MiB, OCI folder to OCI folder:")
    make_image(folder / "plain")
    commands = {
        "plain copy": "skopeo copy oci:plain oci:copied",
        "encrypt": "skopeo copy --encryption-key"
        f" provider:attestation-agent:cc_kbc::kbs:///{KEY} oci:plain oci:encrypted",
        "decrypt": "skopeo copy --decryption-key"
        " provider:attestation-agent:cc_kbc::null oci:encrypted oci:decrypted",
    }
    base: list[float] | None = None
    for name, command in commands.items():
        target = folder / command.rpartition("oci:")[2]

        def clear(target: Path = target) -> None:
            for path in sorted(target.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

        async def copy(command: str = command) -> None:
            await shell.run(command)

        times = await timed(copy, rounds=5, before=clear)
        show(name, times, base)
        base = base or times


async def handshake(url: str) -> None:
    """Compare a handshake with the KBS to its public-key operations alone."""
    print("\nKBS over loopback, sample evidence:")
    evidence = await detect(insecure_sample=True)
    signer = SigningKey.generate()
    now = system_clock().timestamp()

    async def crypto() -> None:
        key = TeeKeyPair.generate()
        token = signer.sign({"alg": "ES256"}, {"exp": now + 300})
        verify(token, signer.public_jwk())
        key.decrypt(jwe.encrypt(bytes(32), key.public_jwk()))

    async def attest() -> None:
        async with KbsClient(url, evidence) as client:
            await client.get_resource(ResourceUri.parse(f"kbs:///{KEY}"))

    base = await timed(crypto, rounds=50)
    show("public-key operations of one handshake and one key", base)
    show("connect, attest, get a key", await timed(attest, rounds=20), base)
    async with KbsClient(url, evidence) as client:
        uri = ResourceUri.parse(f"kbs:///{KEY}")
        times = await timed(lambda: client.get_resource(uri), rounds=50)
    show("one more key in the same session", times, base)


async def demo(bare_boot: float | None) -> None:
    """Show the share of each step of the demo, with full caches, and its computation whole."""
    await base_image()  # once made, it is kept
    print("\nmake demo, shares of the whole:")
    child = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "tools" / "demo.py", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    steps = [(name, float(seconds)) for name, seconds in _STEP.findall(output.decode())]
    whole = sum(seconds for _, seconds in steps)
    if child.returncode or not steps:
        raise SystemExit("the demo failed")
    for name, seconds in steps:
        print(f"  {name:<66}{seconds:6.1f} s{100 * seconds / whole:6.0f} %")
    names = [name for name, _ in steps]
    first = next(number for number, name in enumerate(names) if name.startswith("VM boots"))
    computed = sum(seconds for _, seconds in steps[first:-1])
    ratio = f"{computed / bare_boot:8.2f} x a bare boot" if bare_boot else ""
    print(f"  {'agent create to result':<66}{computed:6.1f} s{ratio}")


async def guide(folder: Path) -> None:
    """Measure what the guide does."""
    ports, _ = free_ports({"kbs": 0, "provider": 0})
    url = f"http://127.0.0.1:{ports['kbs']}"
    shell = await Shell.make(folder, buildah_environment())
    shell.use_key_provider(ports["provider"])
    await shell.run(
        "openssl genpkey -algorithm ed25519 -out admin.key",
        "openssl pkey -in admin.key -pubout -out admin.pub",
        "openssl rand 32 > key",
    )
    async with (
        shell.server(
            f"kbs --socket 127.0.0.1:{ports['kbs']} --insecure-http --auth-public-key"
            " admin.pub --insecure-allow-sample --storage kbs"
        ),
        shell.server(
            f"coco-keyprovider --socket 127.0.0.1:{ports['provider']} --insecure-sample --kbs {url}"
        ),
    ):
        await shell.run(
            f"kbs-client --url {url} config --auth-private-key admin.key set-resource"
            f" --path {KEY} --resource-file key"
        )
        await layers(shell, folder)
        await handshake(url)


TOPICS = ("evidence", "kbs", "guide", "vms", "demo")


async def main(topics: Sequence[str], *, quick: bool) -> None:
    """Run the measurements of some topics."""
    with tempfile.TemporaryDirectory(prefix="cocos-bench-") as name:
        folder = Path(name)
        if "kbs" in topics:
            (folder / "service").mkdir()
            await kbs(folder / "service", quick=quick)
        if "guide" in topics:
            await guide(folder)
        base = await vms(folder) if "vms" in topics else None
    if "demo" in topics:
        await demo(base)


if __name__ == "__main__":
    configure_logs("error")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", default=TOPICS, help=", ".join(TOPICS)
    )
    parser.add_argument("--quick", action="store_true", help="less of the KBS, for a small machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write evidence's figures")
    chosen = parser.parse_args()
    if unknown := set(chosen.topics) - set(TOPICS):
        parser.error(f"no such topic: {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    if chosen.json and "evidence" not in chosen.topics:
        parser.error("only the topic evidence has figures to write")
    if "evidence" in chosen.topics:
        figures = evidence(quick=chosen.quick)
        if chosen.json:
            chosen.json.write_text(json.dumps({"evidence": figures}, indent=2) + "\n")
    asyncio.run(main(chosen.topics, quick=chosen.quick))
