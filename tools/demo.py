# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the guide's main job from nothing to the opened result.

Every step holds the plain commands that it runs; ``--explain`` shows them. All that is
started is stopped again, and all files are in one temporary folder.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from base_image import base_image, buildah_environment
from demo_shell import Shell, free_ports

from cocos.cli._common import configure_logs, report, stderr, stdout
from cocos.errors import CocosError, ProtocolError
from cocos.host.files import cache_folder

PORTS = {"registry": 5000, "kbs": 8080, "provider": 50011, "cvms": 7001, "api": 7020, "http": 7003}
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "lin-reg"
BASE = "python-sklearn:3.13"
DOCKERFILE = """\
FROM {registry}/{base}
COPY lin_reg.py /app/algorithm.py
WORKDIR /app
ENTRYPOINT ["python", "algorithm.py"]
"""
REGISTRY = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: registry}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
PROVED = """\
What this run has shown:
  - program and data lay in the registry encrypted, layer by layer, by an unmodified Skopeo;
  - the KBS gave the keys only in a session whose nonce came back inside the evidence, and
    only wrapped for the key pair that this evidence named;
  - the keys came from this KBS and nobody else: the manifest named it by the key that signs its
    tokens, and every key came with its signature;
  - the agent compared every decrypted layer with the image's diff_id before it ran anything;
  - the result left the agent sealed to the owner's key; the CVMS could not read it.
"""
BACKENDS = {
    "local": """\
What it has not shown: that a machine kept any of it secret. The backend "local" runs the
CVM's programs as processes of this machine, its evidence is a sample that proves nothing,
and this KBS took it only because it was started with --insecure-allow-sample.
""",
    "qemu": """\
  - the KBS gave them to a VM whose TPM, certified by a CA that the operator named, had
    measured exactly the image that was built here, what the host had passed in, and this
    program, without arguments and alone, before any key was asked for.
What it has not shown: that the VM's memory is secret to this machine. Its TPM is software
of this host; with AMD SEV-SNP or Intel TDX the processor takes that part.
""",
}
"""Kind of VM → what it adds to, or takes from, what a run shows."""
HOST_IN_VM = "10.0.2.2"  # QEMU's user network: this host, as a VM sees it


class Demo:
    """One run: a folder, its ports, and a shell that knows our programs."""

    def __init__(self, folder: Path, shell: Shell, *, backend: str, explain: bool) -> None:
        self._folder = folder
        self._shell = shell
        self._vm = backend == "qemu"
        self._ports: dict[str, int] = {}
        self._explain = explain
        self._kbs_key = ""
        self._number = 0

    @contextlib.contextmanager
    def _step(self, text: str) -> Iterator[None]:
        """Show a line for a step once it is done: what, and how long it took."""
        self._number += 1
        begin = time.monotonic()
        with stderr.status(text):
            yield
        took = time.monotonic() - begin
        stdout.print(f"{self._number:3}  {text:<66} {took:6.1f} s", markup=False)
        for command in self._shell.take_commands():
            if self._explain:
                for line in command.splitlines():
                    stdout.print(f"       $ {line}", markup=False, style="dim")

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    async def run(self) -> str:
        """Do everything; return what the algorithm printed."""
        with self._step("base image: Debian's Python, pandas and scikit-learn (kept in a cache)"):
            base = await base_image()
        if self._vm:
            with self._step("image of the confidential VM (kept in a cache)"):
                await self._shell.run("cocos-cli image build")
        async with contextlib.AsyncExitStack() as servers:
            await self._owner(servers)
            try:
                await self._images(base)
                await self._keys()
                await self._encrypt()
            finally:
                await self._remove_images()
            return await self._compute(servers)

    def _choose_ports(self, *names: str) -> None:
        """Take the guide's ports; where one is in use, a free one, and say so."""
        ports, moved = free_ports({name: PORTS[name] for name in names})
        self._ports |= ports
        for name, port in moved.items():
            stdout.print(f"     port {PORTS[name]} is in use, {name} takes {port}")

    async def _owner(self, servers: contextlib.AsyncExitStack) -> None:
        """Start what stands on the owner's side: registry, KBS, key provider."""
        self._choose_ports("registry", "kbs", "provider")
        shell, ports = self._shell, self._ports
        shell.use_key_provider(ports["provider"])
        with self._step("registry, key broker (KBS) and the owner's key provider start"):
            self._write("registry.yml", REGISTRY.format(port=ports["registry"]))
            await servers.enter_async_context(
                shell.server(
                    "docker-registry serve registry.yml",
                    url=f"http://127.0.0.1:{ports['registry']}/v2/",
                )
            )
            await shell.run(
                "openssl genpkey -algorithm ed25519 -out kbs-admin.key",
                "openssl pkey -in kbs-admin.key -pubout -out kbs-admin.pub",
            )
            evidence = "--insecure-allow-sample"
            if self._vm:
                evidence = "--tpm-ek-ca tpm-ca.pem"
                await shell.run("cocos-manager tpm-ca --state-folder manager > tpm-ca.pem")
            await servers.enter_async_context(
                shell.server(
                    f"kbs --socket 127.0.0.1:{ports['kbs']} --insecure-http"
                    " --auth-public-key kbs-admin.pub --attestation-token-type CoCo"
                    f" {evidence} --storage kbs"
                )
            )
            signing = (
                "kbs --storage kbs token-key list --json | jq -r '.keys[] | select(.signs).kid'"
            )
            self._kbs_key = (await shell.run(signing)).strip()
            await servers.enter_async_context(
                shell.server(f"coco-keyprovider --socket 127.0.0.1:{ports['provider']} --keys keys")
            )

    async def _keys(self) -> None:
        kbs = f"http://127.0.0.1:{self._ports['kbs']}"
        image = cache_folder("image") / "cocos"
        # Sample evidence, which proves nothing, says nothing of a computation either.
        for_ = "--any-computation"
        if self._vm:
            algorithm = f"docker://localhost:{self._ports['registry']}/lin-reg-algo:v1.0"
            digest = f"$(cocos-cli checksum --json {algorithm} | jq -r .hash)"
            for_ = f"--for-image {image} --for-algorithm {digest}"
        config = f"kbs-client --url {kbs} config --auth-private-key kbs-admin.key"
        with self._step("keys: who may get them, then into the KBS; a pair for the result"):
            await self._shell.run(f"{config} set-resource-policy --id resource/default/key {for_}")
            await self._shell.run("mkdir -p -m 700 keys/default/key")
            for name in ("algo-key", "dataset-key"):
                await self._shell.run(
                    f"(umask 077; openssl rand -base64 32 > keys/default/key/{name})",
                    f"{config} set-resource --resource default/key/{name}"
                    f" --resource-file keys/default/key/{name}",
                )
            await self._shell.run("cocos-cli keys")
            if self._vm:
                await self._shell.run(
                    f"{config} set-reference-values {image}/reference-values.json"
                )

    async def _images(self, base: str) -> None:
        registry = f"localhost:{self._ports['registry']}"
        for name in ("lin_reg.py", "iris.csv", "Dockerfile.dataset"):
            shutil.copy(EXAMPLE / name, self._folder)
        self._write("Dockerfile", DOCKERFILE.format(registry=registry, base=BASE))
        images = {"algorithm": "lin-reg-algo", "dataset": "iris-dataset"}
        for what, image in images.items():
            file = "" if what == "algorithm" else "-f Dockerfile.dataset "
            with self._step(f"{what}: build the image and push it"):
                if what == "algorithm":
                    await self._shell.run(f"skopeo copy {base} docker://{registry}/{BASE}")
                await self._shell.run(
                    f"buildah build {file}-t {registry}/{image}:v1.0 .",
                    f"buildah push {registry}/{image}:v1.0",
                )

    async def _encrypt(self) -> None:
        registry = f"docker://localhost:{self._ports['registry']}"
        images = {
            "algo-key": ("lin-reg-algo", "encrypted-lin-reg"),
            "dataset-key": ("iris-dataset", "encrypted-iris"),
        }
        for key, (plain, encrypted) in images.items():
            with self._step(f"encrypt {plain} with Skopeo and check every layer"):
                await self._shell.run(
                    "skopeo copy --encryption-key"
                    f" provider:attestation-agent:cc_kbc::kbs:///default/key/{key}"
                    f" {registry}/{plain}:v1.0 {registry}/{encrypted}:v1.0",
                    # Exit code 0 of Skopeo proves nothing.
                    f"skopeo inspect --raw {registry}/{encrypted}:v1.0"
                    " | jq -e 'all(.layers[]; .mediaType | endswith(\"+encrypted\"))'",
                )

    async def _remove_images(self) -> None:
        """Leave only the base image in buildah's store."""
        registry = f"localhost:{self._ports['registry']}"
        names = f"{registry}/lin-reg-algo:v1.0 {registry}/iris-dataset:v1.0"
        with contextlib.suppress(CocosError):
            await self._shell.run(f"buildah rmi {names}")

    async def _compute(self, servers: contextlib.AsyncExitStack) -> str:
        self._choose_ports("cvms", "api", "http")
        shell, ports = self._shell, self._ports
        registry = f"docker://localhost:{ports['registry']}"
        backend, kbs_host = ("qemu", HOST_IN_VM) if self._vm else ("local", "127.0.0.1")
        with self._step("manager and CVMS start"):
            await servers.enter_async_context(
                shell.server(
                    f"cocos-manager --grpc-port {ports['api']} --http-port {ports['http']}"
                    f" --state-folder manager --backend {backend}"
                )
            )
            cvms = await servers.enter_async_context(
                shell.server(
                    f"HOST=127.0.0.1 PORT={ports['cvms']} cvms-test -once"
                    " -public-key-path ./public.pem -attested-tls-bool false"
                    f" -kbs-url http://{kbs_host}:{ports['kbs']}#token-key={self._kbs_key}"
                    " -algo-type oci-image"
                    f" -algo-source-url {registry}/encrypted-lin-reg:v1.0"
                    " -algo-kbs-path default/key/algo-key -dataset-type oci-image"
                    f" -dataset-source-url {registry}/encrypted-iris:v1.0"
                    " -dataset-kbs-path default/key/dataset-key"
                )
            )
        with self._step("VM boots, its agent asks for work" if self._vm else "agent starts"):
            await shell.run(
                f"cocos-cli agent create --manager-url http://localhost:{ports['api']}"
                f" --cvms-url http://127.0.0.1:{ports['cvms']}"
            )
            await cvms.prints("manifest accepted")
        with self._step("agent: attest, fetch the algorithm and its key, decrypt, verify"):
            await cvms.prints("ReceivingData")
        with self._step("agent: the same for the dataset"):
            await cvms.prints("Running")
        with self._step("agent: run the algorithm on the dataset, seal the result"):
            await cvms.ends_well()
        with self._step("result: open it with the owner's private key"):
            await shell.run("cocos-cli result 1.zip.jwe --private-key private.pem")
        printed = (self._folder / "1-results" / "stdout.log").read_text()
        if "Coefficients:" not in printed or "Intercept:" not in printed:
            raise ProtocolError(f"the result holds no coefficients, but: {printed[:500]}")
        return printed


@contextlib.asynccontextmanager
async def interruptible() -> AsyncIterator[None]:
    """Let SIGTERM end the run in order, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def main(*, backend: str, explain: bool) -> None:
    """Run the demo and print what came out of it."""
    begin = time.monotonic()
    async with interruptible():
        with tempfile.TemporaryDirectory(prefix="cocos-demo-") as name:
            folder = Path(name)
            env = {**buildah_environment(), "XDG_STATE_HOME": str(folder / "state")}
            shell = await Shell.make(folder, env)
            printed = await Demo(folder, shell, backend=backend, explain=explain).run()
    stdout.print(
        f"\nThe owner opened the result and read ({time.monotonic() - begin:.1f} s in all):"
    )
    stdout.print(
        "".join(f"  {line}\n" for line in printed.splitlines()), markup=False, style="bold"
    )
    stdout.print(PROVED + BACKENDS[backend], markup=False, end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--explain", action="store_true", help="show the commands of each step")
    parser.add_argument("--backend", choices=BACKENDS, default="qemu", help="kind of VM")
    parser.add_argument("--debug", action="store_true", help="show our programs' debug logs")
    arguments = parser.parse_args()
    configure_logs("warning", debug=arguments.debug)
    os.umask(0o077)
    try:
        asyncio.run(main(backend=arguments.backend, explain=arguments.explain))
    except CocosError as error:
        report("demo", error, as_json=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        stderr.print("demo: stopped; everything that it started has been stopped, too")
        sys.exit(130)
