# SPDX-License-Identifier: Apache-2.0
"""``kbs-client audit``: what a KBS has released, denied and let change, and whether it was."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.table import Table

from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli._screen import visible
from cocos.cli.kbs_client.admin import Connection
from cocos.clients.kbs import KbsAdmin
from cocos.crypto.admin_jwt import load_public_key
from cocos.errors import AuthenticationError, ConfigError, FormatError
from cocos.host.disk import disk_error
from cocos.host.files import read_file
from cocos.wire import audit
from cocos.wire import json as wire_json
from cocos.wire.audit import Checkpoint, Head, Record, Verification

_LIMIT = 2**16
_END = 2**63 - 1

app = common.make_app("Read and verify the audit log of a KBS.")

PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint-key",
        "--public-key",
        help="The key of its checkpoints, as kept when it was set up. [default: what the KBS says]",
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", help="A checkpoint kept from before; repeatable."),
]
LogFile = Annotated[
    Path | None, typer.Option("--file", help="What audit export wrote, instead of a KBS.")
]


@app.callback()
def admin_options(
    context: typer.Context,
    *,
    auth_private_key: admin.AuthPrivateKey = None,
    admin_token_file: admin.AdminTokenFile = None,
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
) -> None:
    """Read and verify what a KBS has released, denied and let change."""
    connection: Connection = context.obj
    context.obj = connection.as_admin(
        admin.credentials(auth_private_key, admin_token_file, role, issuer, audience)
    )


@app.command("show")
def show(
    context: typer.Context,
    *,
    after: Annotated[int, typer.Option(help="Only entries behind this number.", min=0)] = 0,
    event: Annotated[
        list[str] | None,
        typer.Option(help="Only released, denied, attested, administered, …; repeatable."),
    ] = None,
    resource: Annotated[str | None, typer.Option(help="Only of this resource.")] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Print entries; with --json one object per line."""

    async def print_all() -> None:
        table = Table("", "time", "event", "who", "what", "why", box=None, pad_edge=False)
        async with context.obj.admin() as kbs:
            head = await kbs.audit_head()
            async for record in _records(kbs, _last(head), after):
                entry = audit.decode(record)
                if event and entry.get("event") not in event:
                    continue
                if resource is not None and entry.get("resource") != resource:
                    continue
                if as_json:
                    print(json.dumps(entry))  # noqa: T201
                else:
                    table.add_row(*map(visible, _row(entry)))
        if not as_json:
            common.stdout.print(table)

    common.run_async(print_all())


@app.command("checkpoint")
def checkpoint(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the newest checkpoint: keep it where the KBS's host cannot reach."""
    head = common.run_async(_head(context.obj))
    data = {"log": head.log, "checkpoint": head.checkpoint, "public_key": head.public_key}
    common.emit(data, lambda: print(head.checkpoint), as_json=as_json)  # noqa: T201


@app.command("public-key")
def public_key(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the key that signs checkpoints: keep it when a KBS is set up."""
    head = common.run_async(_head(context.obj))
    data = {"log": head.log, "public_key": head.public_key}
    common.emit(data, lambda: print(head.public_key, end=""), as_json=as_json)  # noqa: T201


@app.command("export")
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to.")],
    *,
    as_json: common.JsonFlag = False,
) -> None:
    """Write the whole log to a file, for audit verify --file."""

    async def write() -> int:
        written = 0
        with common.stderr.status("reading the audit log"), file.open("wb") as output:
            async with context.obj.admin() as kbs:
                head = await kbs.audit_head()
                output.write(wire_json.encode(head) + b"\n")
                async for record in _records(kbs, _last(head)):
                    output.write(wire_json.encode(record) + b"\n")
                    written += 1
        return written

    written = common.run_async(write())
    common.emit(
        {"file": str(file), "entries": written},
        lambda: common.stdout.print(f"wrote {written} entries to {file}", markup=False),
        as_json=as_json,
    )


@app.command("verify")
def verify(
    context: typer.Context,
    *,
    public_key: PublicKey = None,
    checkpoints: Checkpoints = None,
    file: LogFile = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Find entries that were removed, changed, moved or made up; exit code 65 if there are.

    Without --checkpoint nobody can tell whether the newest entries were cut off, and without
    --checkpoint-key whether it is the same log at all.
    """
    pinned = None if public_key is None else _public_key(public_key)
    kept = {
        f"--checkpoint {each}": read_file(each, "the checkpoint", limit=_LIMIT).decode(
            "utf-8", "replace"
        )
        for each in checkpoints or ()
    }
    with common.stderr.status("verifying the audit log"):
        if file is None:
            done = common.run_async(_verify_kbs(context.obj, pinned, kept))
        else:
            done = _verify_file(file, pinned, kept)
    findings = [{"check": found.check, "problem": found.problem} for found in done.findings]
    data = {
        "ok": not findings,
        "log": done.log,
        "entries": done.seq,
        "key_from": "KBS" if pinned is None else "file",
        "checkpoints": len(kept),
        "findings": findings,
    }
    common.emit(
        data, lambda: _say(done, pinned=pinned is not None, kept=len(kept)), as_json=as_json
    )
    done.raise_if_broken()


def _public_key(file: Path) -> Ed25519PublicKey:
    pem = read_file(file, "the public key", limit=_LIMIT)
    try:
        return load_public_key(pem)
    except ConfigError as error:
        raise ConfigError(
            f"--checkpoint-key {file}: this is no Ed25519 public key in PEM",
            hint="kbs-client audit public-key prints the KBS's",
        ) from error


async def _verify_kbs(
    connection: Connection, pinned: Ed25519PublicKey | None, kept: Mapping[str, str]
) -> Verification:
    async with connection.admin() as kbs:
        head = await kbs.audit_head()
        done, last = _begin(head, pinned, kept)
        async for record in _records(kbs, last):
            done.add(record)
    done.end()
    return done


def _verify_file(
    file: Path, pinned: Ed25519PublicKey | None, kept: Mapping[str, str]
) -> Verification:
    lines = _lines(file)
    head: Head = wire_json.decode(next(lines, b""), Head, f"the first line of {file}")
    done, _ = _begin(head, pinned, kept)
    for number, line in enumerate(lines, 2):
        record: Record = wire_json.decode(line, Record, f"line {number} of {file}")
        done.add(record)
    done.end()
    return done


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise disk_error(error, f"cannot read {file}", FormatError) from error


def _begin(
    head: Head, pinned: Ed25519PublicKey | None, kept: Mapping[str, str]
) -> tuple[Verification, int]:
    """Return a verification that must reach every checkpoint, and the last one's number."""
    key = pinned or load_public_key(head.public_key.encode())
    opened: list[Checkpoint] = []
    newest = {"the newest checkpoint of the log": head.checkpoint} if head.checkpoint else {}
    for name, text in {**kept, **newest}.items():
        try:
            opened.append(audit.open_checkpoint(text, key))
        except FormatError as error:
            raise FormatError(
                f"{name}: this is no checkpoint", hint="kbs-client audit checkpoint prints one"
            ) from error
        except AuthenticationError as error:
            raise AuthenticationError(
                f"{name}: not signed by the public key", hint="is it of another log?"
            ) from error
    return Verification(head.log, key, opened), opened[-1].seq if head.checkpoint else _END


def _last(head: Head) -> int:
    key = load_public_key(head.public_key.encode())
    return audit.open_checkpoint(head.checkpoint, key).seq if head.checkpoint else _END


async def _records(kbs: KbsAdmin, last: int, after: int = 0) -> AsyncIterator[Record]:
    """Yield the records behind ``after`` up to ``last``; what comes later is not signed yet."""
    while after < last:
        before = after
        for record in (await kbs.audit_page(after)).records:
            if record.seq > last:
                return
            after = record.seq
            yield record
        if after <= before:
            return  # it ends too early, or goes in circles


async def _head(connection: Connection) -> Head:
    async with connection.admin() as kbs:
        return await kbs.audit_head()


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return an entry's cells; strangers chose some of the words."""
    verdict = " ".join(f"{name}={status}" for name, status in entry.get("verdict", {}).items())
    who = " ".join(str(entry[name]) for name in ("admin", "tee", "address") if entry.get(name))
    what = str(entry.get("resource") or entry.get("step") or entry.get("key") or "")
    why = str(entry.get("reason") or verdict or entry.get("count") or "")
    time = str(entry.get("time", ""))[:19].replace("T", " ")
    return str(entry.get("seq", "")), time, str(entry.get("event", "")), who, what, why


def _say(done: Verification, *, pinned: bool, kept: int) -> None:
    for found in done.findings:
        common.stderr.print(f"{found.check}: {found.problem}", markup=False, style="red")
    if done.findings:
        return
    common.stdout.print(f"{done.seq} entries of the log {done.log} hold", markup=False)
    if not pinned:
        common.stdout.print("  by the key that the KBS itself names (no --checkpoint-key)")
    if not kept:
        common.stdout.print("  cut off or not: unknown (no --checkpoint)")
