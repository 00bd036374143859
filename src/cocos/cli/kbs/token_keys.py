# SPDX-License-Identifier: Apache-2.0
"""``kbs token-key``: the keys that sign attestation tokens."""

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from cocos._clock import system_clock
from cocos.attestation_service.signing_keys import LEAD, Note, SigningKeys
from cocos.cli import _common as common
from cocos.cli.kbs.storage import opened
from cocos.cli.kbs.tokens import signing_keys
from cocos.kbs.config import Settings
from cocos.stores.opening import Storage
from cocos.tokens.key_ring import KeyRing, RingKey
from cocos.wire.audit import Entry

_KID = 43  # characters of a SHA-256 in base64url

T = TypeVar("T")

app = common.make_app(
    "The keys that sign attestation tokens, in the storage: all KBSs on it follow a change. "
    "Options that say where the storage is come before: kbs --storage … token-key list."
)


@app.command("list")
def list_keys(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Show the keys whose tokens hold, and which of them signs."""
    ring = _with_keys(context.obj, lambda keys, _: keys.ring())
    rows = _rows(ring)
    common.emit({"keys": rows}, lambda: _show(rows), as_json=as_json)


@app.command()
def rotate(
    context: typer.Context,
    *,
    lead: Annotated[
        int,
        typer.Option(
            help="Seconds from its publication to its first signature; give relying parties "
            "time to fetch it.",
            min=int(LEAD.total_seconds()),
        ),
    ] = 3600,
    as_json: common.JsonFlag = False,
) -> None:
    """Publish a new key, which takes over later; the old one's tokens hold until they expire."""

    async def publish(keys: SigningKeys, storage: Storage) -> RingKey:
        note = _note(storage, "token-key-published")
        return await keys.rotate(dt.timedelta(seconds=lead), note=note)

    new = _with_keys(context.obj, publish)
    common.emit(
        {"kid": new.kid, "active": new.active},
        lambda: common.stdout.print(
            f"published {new.kid}; it signs from {_time(new.active)}", markup=False
        ),
        as_json=as_json,
    )


@app.command()
def revoke(
    context: typer.Context,
    kid: Annotated[str, typer.Argument(help="As list shows it.")],
    *,
    as_json: common.JsonFlag = False,
) -> None:
    """Believe no token by a key that has leaked; guests with such tokens attest again."""

    async def forget(keys: SigningKeys, storage: Storage) -> None:
        await keys.revoke(kid, note=_note(storage, "token-key-revoked"))

    _with_keys(context.obj, forget)
    common.emit(
        {"kid": kid},
        lambda: common.stdout.print(f"no token by {kid} holds any more", markup=False),
        as_json=as_json,
    )


def _with_keys(settings: Settings, work: Callable[[SigningKeys, Storage], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(settings, create=False) as storage:
            keys = signing_keys(settings, storage.store, clock=system_clock)
            return await work(keys, storage)

    return common.run_async(run())


def _note(storage: Storage, event: str) -> Note:
    """Return what writes the change into the audit log, before it is made."""

    async def note(kid: str) -> None:
        await storage.audit.append(Entry(event, key=kid))

    return note


def _rows(ring: KeyRing) -> list[dict[str, Any]]:
    now = system_clock()
    believed = ring.believed(now)
    signing = ring.signing(now).kid if believed else None
    return [
        {
            "kid": key.kid,
            "signs": key.kid == signing,
            "active": key.active,
            "expires": key.expires,
        }
        for key in believed
    ]


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Column, Table  # noqa: PLC0415 - a key broker that serves does without

    kid = Column("kid", overflow="fold", min_width=_KID)  # revoke wants it whole
    table = Table(kid, "signs", "active from", "believed until")
    for row in rows:
        table.add_row(
            row["kid"],
            "yes" if row["signs"] else "",
            # The first key of a storage has nothing to wait for.
            _time(row["active"]) if row["active"].timestamp() else "since it was made",
            _time(row["expires"]) if row["expires"] else "",
        )
    common.stdout.print(table)


def _time(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
