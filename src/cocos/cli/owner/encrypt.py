# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli encrypt``: key, registration and Skopeo in one, and a look at the result."""

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from cocos._clock import system_clock
from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli import _terms as terms
from cocos.clients.admin_credentials import Credentials
from cocos.crypto import kek
from cocos.errors import CocosError, FormatError, IntegrityError, StateError, UsageError
from cocos.host.files import read_file
from cocos.host.images import credentials, skopeo
from cocos.host.images.skopeo import Copied, Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.registration import Binding, Registrar
from cocos.wire import layers, oci, ocicrypt
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri
from cocos.wire.manifest.parts import Algorithm, Dataset

_MAX_KEY_FILE = 4096


@dataclass(frozen=True, slots=True)
class _Job:
    source: oci.Reference
    destination: oci.Reference
    key: ResourcePath
    folder: KeyFolder
    key_file: Path | None
    word: terms.Word
    registrar: Registrar | None
    authfile: Path | None
    registries: Path | None


Key = Annotated[
    str, typer.Option(help="Name of the key at the KBS: repository/type/tag. Made if missing.")
]
Kbs = Annotated[
    str | None, typer.Option(metavar="URL", envvar="KBS_URL", help="Register the key at this KBS.")
]
KbsCa = Annotated[
    Path | None,
    typer.Option(envvar="KBS_CERT_FILE", help="The only CA to trust for the KBS, as PEM."),
]
Keys = Annotated[
    Path | None,
    typer.Option(help="Folder of your keys. [default: ~/.local/share/cocos/keys]"),
]
KeyFile = Annotated[
    Path | None, typer.Option(help="Take the key from this file and keep it in the folder.")
]
ReplacePolicy = Annotated[
    bool,
    typer.Option("--replace-policy", help="Also where the KBS has another policy for the key."),
]
AuthFile = Annotated[
    Path | None,
    typer.Option(envvar="REGISTRY_AUTH_FILE", help="Credentials for the registries."),
]
Registries = Annotated[
    Path | None,
    typer.Option(
        "--registries-conf",
        envvar="CONTAINERS_REGISTRIES_CONF",
        help="How to reach registries. [default: https, plain http on loopback]",
    ),
]
Source = Annotated[
    str, typer.Argument(help="Plain image: docker://registry/name:tag or oci:folder.")
]
Destination = Annotated[str, typer.Argument(help="Where the encrypted image goes.")]


def encrypt(
    source: Source,
    destination: Destination,
    *,
    key: Key,
    kbs: Kbs = None,
    auth_private_key: admin.AuthPrivateKey = None,
    admin_token_file: admin.AdminTokenFile = None,
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
    kbs_ca: KbsCa = None,
    keys: Keys = None,
    key_file: KeyFile = None,
    for_manifest: terms.For = None,
    for_image: terms.ForImage = None,
    for_algorithm: terms.ForAlgorithm = None,
    any_computation: terms.AnyComputation = False,
    replace_policy: ReplacePolicy = False,
    authfile: AuthFile = None,
    registries: Registries = None,
    log_level: common.LogLevel = "warning",
    as_json: common.JsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Encrypt an image so that only those whom you name can read it.

    The key is made if it is not in your key folder, registered at the KBS under a policy of
    its own, and used to encrypt every layer. Fails if anything of the result is readable
    without it. Say who may get the key: --for, --for-image, --for-algorithm or
    --any-computation; on a terminal you are asked.
    """
    common.configure_logs(log_level, debug=debug)
    if authfile is not None:
        credentials.check(authfile)
    proof = admin.credentials(
        auth_private_key, admin_token_file, role, issuer, audience, look=kbs is not None
    )
    path = ResourcePath.parse(key.removeprefix("kbs:///"))
    word = terms.Word.of(for_manifest, for_image, for_algorithm, any_computation)
    _check_kbs(kbs, proof, word)
    registrar = None
    if kbs is not None:
        word = _said(word, path, proof, as_json=as_json)
        bound = _binding(word, path, replace=replace_policy)
        registrar = _registrar(kbs, proof, bound, kbs_ca)
    job = _Job(
        source=oci.Reference.parse(source),
        destination=oci.Reference.parse(destination),
        key=path,
        folder=KeyFolder.default() if keys is None else KeyFolder(keys),
        key_file=key_file,
        word=word,
        registrar=registrar,
        authfile=authfile,
        registries=registries,
    )
    copied, made = common.run_async(_encrypt(job))
    _warn_of_others(job, copied)
    _show(job, copied, made=made, as_json=as_json)


def _binding(word: terms.Word, key: ResourcePath, *, replace: bool) -> Binding | None:
    text = word.policy(f"cocos-cli encrypt --key {key}")
    return Binding(text, replace=replace) if word else None


def _registrar(
    url: str, proof: Credentials, binding: Binding | None, ca_file: Path | None
) -> Registrar:
    return Registrar(url, credentials=proof, clock=system_clock, binding=binding, ca_file=ca_file)


def _check_kbs(kbs: str | None, proof: Credentials, word: terms.Word) -> None:
    if kbs is None and proof:
        raise UsageError("an administrator's key or token needs a KBS", hint="--kbs URL (KBS_URL)")
    if kbs is None and word:
        raise UsageError("who may get the key is the KBS's to know: --kbs URL is missing")


def _said(word: terms.Word, key: ResourcePath, proof: Credentials, *, as_json: bool) -> terms.Word:
    """Return who may get the key: as said, or as answered.

    A KBS that asks for no administrator's key lets everybody replace policies. Of one such
    nobody needs to say anything: what would hold?
    """
    if not word and proof:
        if not terms.can_ask(as_json=as_json):
            raise UsageError(f"say who may get the key {key.uri}", hint=terms.OPTIONS)
        word = terms.ask(f"the key {key.uri}")
    if not word:
        common.stderr.print(
            f"warning: the key {key.uri} stands under the KBS's global policy, and who reaches "
            f"this KBS can change that; {word.caveat()}",
            style="yellow",
            markup=False,
        )
    else:
        terms.note(word)
    return word


def _warn_of_others(job: _Job, copied: Copied) -> None:
    """Say if the computations that may have the key do not use this image."""
    ours = (str(job.key), copied.manifest.config.digest)
    parts: list[Algorithm | Dataset] = []
    for each in job.word.computations():
        parts += [each.algorithm, *each.datasets]
    used = {(part.source.key, f"sha256:{part.hash.hex()}") for part in parts}
    if used and ours not in used:
        common.stderr.print(
            f"warning: the manifest has no resource with the key {ours[0]} and the hash "
            f"{ours[1]}: it names another image, which this key is for now",
            style="yellow",
            markup=False,
        )


async def _encrypt(job: _Job) -> tuple[Copied, bool]:
    found_tool = await skopeo.find()
    tool = Skopeo(found_tool.argv, authfile=job.authfile, registries=job.registries)
    found = await tool.resolve(job.source)
    skopeo.require_image(found)  # before a key is made
    skopeo.require_plain(found)
    _note_compression(found)
    key, made = await asyncio.to_thread(_local_key, job)
    if job.registrar is not None:
        # First: an image whose key nobody has registered is of no use to anybody.
        await _register(job, job.registrar, key, new=made)
        common.stderr.print(f"key {job.key.uri} is registered at {job.registrar.url}")
    with tempfile.TemporaryDirectory(prefix="cocos-encrypt-") as name, _progress() as bar:
        config = Path(name) / "ocicrypt.json"
        folder = os.path.abspath(job.folder.folder)  # noqa: ASYNC240, PTH100 - reads no file
        argv = [
            sys.executable,
            "-P",
            "-m",
            "cocos.cli.guest.coco_keyprovider",
            "--keys",
            folder,
            "once",
        ]
        config.write_bytes(ocicrypt.command_config(argv))
        task = bar.add_task("encrypting", total=found.layer_bytes)
        copied = await tool.copy(
            found.reference,
            job.destination,
            encryption_key=f"keyid={job.key.uri}",
            keyprovider_config=config,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _check(job, copied, key)
    return copied, made


def _note_compression(found: skopeo.Source) -> None:
    for name, layer in found.named_layers():
        if layers.packing(layer) is layers.Packing.ZSTD:
            common.stderr.print(f"note: {name} is compressed with zstd: with gzip from now on")


async def _register(job: _Job, registrar: Registrar, key: bytes, *, new: bool) -> None:
    try:
        await registrar.register(job.key, key, new=new)
    except CocosError:
        if new:
            # Kept, it would look like a registered key at the next try.
            job.folder.discard(job.key)
        raise


def _local_key(job: _Job) -> tuple[bytes, bool]:
    """Return the key, and whether it is new."""
    wanted = None
    if job.key_file is not None:
        what = f"the key {job.key_file}"
        wanted = kek.parse(read_file(job.key_file, what, limit=_MAX_KEY_FILE), what)
    present = job.folder.read(job.key)
    if present is not None:
        if wanted is not None and wanted != present:
            raise StateError(
                f"{job.key_file} is not the key {job.key.uri} of {job.folder.path(job.key)}",
                hint="images may need the old key: choose another --key, or move the file away",
            )
        return present, False
    key = kek.generate() if wanted is None else wanted
    job.folder.store(job.key, key)
    return key, wanted is None


def _check(job: _Job, copied: Copied, key: bytes) -> None:
    """Open every layer's packet with the key: what we cannot open, no guest can."""
    where = skopeo.Source(job.destination, copied.digest, copied.manifest)
    skopeo.require_key(where, ResourceUri.parse(job.key.uri))
    for layer in copied.manifest.layers:
        for packet in ocicrypt.layer_packets(layer):
            try:
                options = kek.unwrap(key, packet.wrapped, f"the key {job.key.uri}")
                ocicrypt.check_options(options)
            except FormatError as error:
                raise IntegrityError(
                    f"layer {layer.digest} came out wrong: {error.message}"
                ) from error


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
        console=common.stderr.console(),
    )


def _show(job: _Job, copied: Copied, *, made: bool, as_json: bool) -> None:
    result = {
        "image": str(job.destination),
        "digest": copied.digest,
        "config_digest": copied.manifest.config.digest,
        "layers": [layer.digest for layer in copied.manifest.layers],
        "key": job.key.uri,
        "key_file": str(job.folder.path(job.key)),
        "key_made": made,
        "registered_at": None if job.registrar is None else job.registrar.url,
        "policy": f"resource/{job.key}" if job.word else None,
    }

    def human() -> None:
        count = len(copied.manifest.layers)
        common.stdout.print(
            f"encrypted {count} layer{'' if count == 1 else 's'} of {job.source} to "
            f"{job.key.uri}\n"
            f"  image          {job.destination}\n"
            f"  digest         {copied.digest}\n"
            f"  config digest  {copied.manifest.config.digest}\n"
            f"  key            {job.folder.path(job.key)}{' (new)' if made else ''}",
            markup=False,
        )

    common.emit(result, human, as_json=as_json)
    if job.registrar is None:
        common.stderr.print(
            f"warning: the key {job.key.uri} is not registered, so no guest can decrypt the image: "
            "encrypt with --kbs URL, or store it yourself",
            style="yellow",
            markup=False,
        )
