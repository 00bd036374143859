# SPDX-License-Identifier: Apache-2.0
"""Copying with Skopeo and checking what came out; see :mod:`cocos.host.images.skopeo`."""

import asyncio
import json
import platform
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cocos.errors import ConfigError, IntegrityError, NotFoundError, UsageError
from cocos.host.files import read_certificates, write_atomic
from cocos.host.images import credentials, layout
from cocos.host.images._skopeo_run import Meter, OnProgress, run
from cocos.host.images.registry_errors import web_page
from cocos.host.images.required import Source, require_encrypted, require_plain
from cocos.wire import layers, oci, ocicrypt
from cocos.wire.json import encode

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_INSPECT_SECONDS = 120.0
_GZIP = ("--dest-compress-format", "gzip")  # what is gzip already stays as it is
_ARCHITECTURES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8")}


def registries_conf(*, insecure: Sequence[str] = LOOPBACK) -> str:
    """Return a registries.conf in which the named hosts, on any port, may speak plain http."""
    return "".join(
        f"[[registry]]\nlocation = {json.dumps(host)}\ninsecure = true\n\n" for host in insecure
    )


def trust_policy() -> bytes:
    """Return a trust policy that accepts registries and OCI layouts and nothing else."""
    accept = {"": [{"type": "insecureAcceptAnything"}]}
    return encode(
        {"default": [{"type": "reject"}], "transports": {"docker": accept, "oci": accept}}
    )


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy left at its destination.

    Attributes:
        digest: Of the manifest.
        manifest: The manifest.
        image: The verified plaintext, after a decryption.
    """

    digest: oci.Digest
    manifest: oci.Manifest
    image: layout.VerifiedImage | None = None


@dataclass(frozen=True, slots=True)
class Skopeo:
    """A Skopeo and how it reaches registries.

    Attributes:
        argv: The words that start it.
        authfile: Credentials; by default where Skopeo looks for them.
        registries: A registries.conf; by default one with plain http on loopback only.
        policy: A trust policy; by default :func:`trust_policy`.
        extra_root_certificates: CAs, PEM, that sources may chain to beside the system's.
        verify_tls: Speak verified TLS to sources whatever the registries.conf says.
    """

    argv: tuple[str, ...]
    authfile: Path | None = None
    registries: Path | None = None
    policy: Path | None = None
    extra_root_certificates: Path | None = None
    verify_tls: bool = False

    async def inspect(self, reference: oci.Reference | str) -> bytes:
        """Return the manifest or index behind a reference, byte for byte.

        Raises:
            IntegrityError: the reference has a digest, and the registry sent something else.
            CocosError: as translated from what Skopeo says; names the registry tried.
        """
        reference = _parsed(reference)
        data = await self._inspect(reference)
        if reference.digest and oci.digest_of(data) != reference.digest:
            raise IntegrityError(f"the registry sent something else than {reference}")
        return data

    async def _inspect(self, reference: oci.Reference, *options: str) -> bytes:
        with self._prepared() as prepared:
            reach = [*self._auth("--authfile"), *self._tls("--", prepared[-1])]
            words = [*prepared, "inspect", "--raw", *options, *reach]
            subject = f"reading {reference}"
            with credentials.explained(self.authfile):
                data = await run([*words, str(reference)], subject, timeout=_INSPECT_SECONDS)
        if (error := web_page(data, subject)) is not None:
            raise error
        return data

    async def resolve(self, reference: oci.Reference | str) -> Source:
        """Return the one image for this machine behind a reference, pinned by digest.

        Raises:
            NotFoundError: no such image, or none for this machine's architecture.
        """
        reference = _parsed(reference)
        if reference.transport == "oci":
            digest, manifest = await asyncio.to_thread(
                layout.read_manifest, Path(reference.name), tag=reference.tag or None
            )
            return Source(reference, digest, manifest)
        data = await self.inspect(reference)
        found = oci.parse_manifest(data)
        if isinstance(found, oci.Index):
            digest = _for_this_machine(found, reference)
            data = await self.inspect(reference.pinned(digest))
            found = oci.parse_manifest(data)
        digest = oci.digest_of(data)
        if not isinstance(found, oci.Manifest):
            raise NotFoundError(f"{reference} is an index of indexes")
        return Source(reference.pinned(digest), digest, found)

    async def config(self, source: Source) -> oci.ImageConfig:
        """Return an image's config, checked against the digest in its manifest.

        Raises:
            IntegrityError: it is another one.
        """
        expected = source.manifest.config
        if source.reference.transport == "oci":
            folder = Path(source.reference.name)
            data = await asyncio.to_thread(
                layout.read_document, folder, expected, "the image config"
            )
        else:
            data = await self._inspect(source.reference, "--config")
        if oci.digest_of(data) != expected.digest:
            raise IntegrityError(
                f"the config of {source.reference} was changed: it is not {expected.digest}"
            )
        return oci.parse_config(data)

    async def copy(
        self,
        source: oci.Reference | str | Source,
        destination: oci.Reference | str,
        *,
        encryption_key: str | None = None,
        decryption_key: str | None = None,
        keyprovider_config: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> Copied:
        """Copy one image and check what came out.

        What is encrypted, and what goes to a folder, has no layer that is compressed with zstd
        afterwards: VMs could not unpack it.

        Args:
            source: Where from; what was resolved before is not looked up again.
            destination: Where to; after a decryption only a layout, which is made private.
            encryption_key: What follows ``provider:attestation-agent:``; every layer of the
                result is encrypted, or this fails.
            decryption_key: The same; every layer of the source must be encrypted, and the
                result is verified down to the plaintext.
            keyprovider_config: File of ocicrypt that names the key provider.
            on_progress: Called as bytes go by.

        Raises:
            IntegrityError: the source is encrypted, or not, against what the caller says,
                or the result does not hold.
            UsageError: both keys, or a decryption to a registry.
            CocosError: as translated from what Skopeo says.
        """
        key = _key_words(encryption_key, decryption_key, keyprovider_config)
        target = _parsed(destination)
        if decryption_key is not None and target.transport != "oci":
            raise UsageError(f"an image is decrypted to a folder only, not to {target}")
        found = source if isinstance(source, Source) else await self.resolve(source)
        if encryption_key is not None:
            require_plain(found)
        if decryption_key is not None:
            require_encrypted(found)
        if target.transport == "oci":
            _make_private(target.name)
        # A decrypted layer is read a second time to be checked.
        meter = Meter(found.layer_bytes * (2 if decryption_key is not None else 1), on_progress)
        written = await self._copy(found, target, key, keyprovider_config, meter)
        if encryption_key is not None:
            require_encrypted(written)
        image = None
        if decryption_key is not None:
            written = await self._compressed_anew(written)
            image = await asyncio.to_thread(
                layout.verify,
                Path(target.name),
                tag=target.tag or None,
                config_digest=oci.parse_digest(found.manifest.config.digest),
                on_bytes=meter.add,
            )
        meter.finish()
        return Copied(written.digest, written.manifest, image)

    async def _compressed_anew(self, found: Source) -> Source:
        """Replace a layout's zstd by gzip; Skopeo does not do so while it decrypts."""
        if layers.Packing.ZSTD not in map(layers.packing, found.manifest.layers):
            return found
        folder = Path(found.reference.name)
        other = folder.with_name(f"{folder.name}.anew")
        _make_private(str(other))
        try:
            target = replace(found.reference, name=str(other))
            written = await self._copy(found, target, (), None, Meter(0, None))
            await asyncio.to_thread(shutil.rmtree, folder)
            other.rename(folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, other, ignore_errors=True)
        return replace(written, reference=found.reference)

    async def _copy(
        self,
        source: Source,
        target: oci.Reference,
        key: Sequence[str],
        keyprovider_config: Path | None,
        meter: Meter,
    ) -> Source:
        env = {}
        if keyprovider_config is not None:
            env["OCICRYPT_KEYPROVIDER_CONFIG"] = str(keyprovider_config)
        with self._prepared() as prepared:
            digest_file = Path(prepared[-1]) / "digest"
            auth = [*self._auth("--src-authfile"), *self._auth("--dest-authfile")]
            auth += self._tls("--src-", prepared[-1])
            names = [str(source.reference), str(target)]
            gzip = _GZIP if key or target.transport == "oci" else ()
            argv = [*prepared, "copy", "--digestfile", str(digest_file), *gzip, *key, *auth]
            subject = f"copying {names[0]} to {names[1]}"
            try:
                with credentials.explained(self.authfile):
                    share = source.layer_bytes
                    await run([*argv, *names], subject, env=env, meter=meter, share=share)
            except IntegrityError as error:
                said = error.message.removeprefix(f"{subject}: ")
                if "sha256:" not in said and target.transport == "oci":
                    bad = await self._not_decrypted(source, Path(target.name))
                    error.message = f"{subject}: {bad}: {said}"
                raise
            digest = oci.parse_digest(digest_file.read_text("ascii").strip())
        written = await self.resolve(target.pinned(digest))
        if written.digest != digest:
            raise IntegrityError(f"{target} was changed while it was being written")
        return written

    async def _not_decrypted(self, source: Source, target: Path) -> str:
        """Name the first layer whose plaintext has not arrived; Skopeo does not always."""
        diff_ids = (await self.config(source)).rootfs.diff_ids
        arrived = await asyncio.to_thread(layout.plaintexts, target)
        for number, (layer, diff_id) in enumerate(
            zip(source.manifest.layers, diff_ids, strict=False), 1
        ):
            if diff_id not in arrived:
                return f"layer {number} ({layer.digest})"
        return "a layer"

    def _auth(self, option: str) -> list[str]:
        if self.authfile is None:
            return []
        credentials.check(self.authfile)
        return [option, str(self.authfile)]

    def _tls(self, option: str, folder: str) -> list[str]:
        words = [f"{option}tls-verify=true"] if self.verify_tls else []
        if self.extra_root_certificates is not None:
            certificates = read_certificates(self.extra_root_certificates, "the registries' CA")
            (Path(folder) / "certs").mkdir()
            (Path(folder) / "certs" / "ca.crt").write_bytes(certificates)
            words += [f"{option}cert-dir", f"{folder}/certs"]
        return words

    @contextmanager
    def _prepared(self) -> Iterator[list[str]]:
        """Yield the words before the sub-command; the last is a private temporary folder."""
        with tempfile.TemporaryDirectory(prefix="cocos-skopeo-") as name:
            policy, registries = self.policy, self.registries
            if policy is None:
                policy = Path(name) / "policy.json"
                write_atomic(policy, trust_policy())
            if registries is None:
                registries = Path(name) / "registries.conf"
                write_atomic(registries, registries_conf().encode())
            yield [
                *self.argv,
                "--debug",  # read by run()
                *("--policy", str(policy)),
                *("--registries-conf", str(registries)),
                *("--tmpdir", name),
            ]

    def install_wrapper(self, folder: Path) -> Path:
        """Write a ``skopeo`` for people's PATH that behaves as ours does.

        Returns:
            The folder ``bin`` that holds it, beside its policy and registries.conf.
        """
        binaries = folder / "bin"
        binaries.mkdir(mode=0o700, parents=True, exist_ok=True)
        policy, registries = folder / "policy.json", folder / "registries.conf"
        write_atomic(policy, trust_policy())
        write_atomic(registries, registries_conf().encode())
        words = [*self.argv, "--policy", str(policy), "--registries-conf", str(registries)]
        script = f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'
        write_atomic(binaries / "skopeo", script.encode(), mode=0o700)
        return binaries


def _key_words(encryption: str | None, decryption: str | None, config: Path | None) -> list[str]:
    if encryption is not None and decryption is not None:
        raise UsageError("an image is encrypted or decrypted, not both in one copy")
    key = encryption if encryption is not None else decryption
    if key is None:
        return []
    if "," in key:
        raise UsageError(f"a key parameter cannot hold a comma: {key!r}")
    if config is None:
        raise ConfigError("encryption needs a key provider's configuration file")
    option = "--encryption-key" if encryption is not None else "--decryption-key"
    return [option, f"provider:{ocicrypt.PROVIDER}:{key}"]


def _make_private(folder: str) -> None:
    # Skopeo's files are readable for everybody; the folder that they are in is not.
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)


def _parsed(reference: oci.Reference | str) -> oci.Reference:
    return oci.Reference.parse(reference) if isinstance(reference, str) else reference


def _for_this_machine(index: oci.Index, reference: oci.Reference) -> oci.Digest:
    """Choose an image as Skopeo does: this machine's, else the first that is for no machine."""
    machine = platform.machine()
    architecture, newest = _ARCHITECTURES.get(machine, (machine, ""))
    wanted = [oci.Platform(architecture, "linux", variant) for variant in (newest, "")]
    for fitting in (*wanted, None):
        for entry in index.manifests:
            if entry.platform == fitting:
                return oci.parse_digest(entry.digest)
    there = sorted({str(each.platform) for each in index.manifests})
    raise NotFoundError(
        f"{reference} has no image for linux/{architecture}, only for {', '.join(there)[:200]}"
        if there
        else f"{reference} is an index without images"
    )
