# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: change what a KBS knows."""

import datetime as dt
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from cocos._clock import system_clock
from cocos.cli import _common as common
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import ConfigError, FormatError, NotFoundError, UsageError
from cocos.host.files import read_file
from cocos.policy import defaults
from cocos.wire import json
from cocos.wire.kbs import ResourcePath

_INPUTS = "inputs"

DENY_ALL = """\
package policy

default allow := false
"""

ALLOW_ALL = """\
# Insecure: whoever completes a handshake gets every resource.
package policy

import rego.v1

default allow := false

allow if data.plugin == "resource"
"""

app = common.make_app("Change what the KBS knows: resources, policies, reference values.")

PathOption = Annotated[str, typer.Option("--path", help="The resource, as repository/type/tag.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the KBS is, and how an admin proves itself.

    Attributes:
        url: Base URL.
        cert_file: The only CA to trust, as PEM.
        token: Admin JWT; None to ask without.
    """

    url: str
    cert_file: Path | None
    token: str | None = field(default=None, repr=False)


class PolicyType(enum.StrEnum):
    """Languages of policies."""

    REGO = "rego"


def mint(private_key: Path, lifetime: dt.timedelta = dt.timedelta(minutes=5)) -> str:
    """Return an admin token signed by the key in a file."""
    pem = read_file(private_key, "the admin's private key", limit=2**16)
    return admin_jwt.mint(pem, now=system_clock(), lifetime=lifetime)


def run_admin(connection: Connection, work: Callable[[KbsAdmin], Awaitable[Any]]) -> Any:
    """Do something as admin, and return what it returns."""

    async def run() -> Any:
        async with KbsAdmin(
            connection.url, token=connection.token, ca_file=connection.cert_file
        ) as admin:
            return await work(admin)

    with common.stderr.status(f"asking the KBS at {connection.url}"):
        return common.run_async(run())


@app.callback()
def admin_options(
    context: typer.Context,
    *,
    auth_private_key: Annotated[
        Path | None,
        typer.Option("--auth-private-key", help="The admin's Ed25519 private key, as PEM."),
    ] = None,
    admin_token_file: Annotated[
        Path | None,
        typer.Option("--admin-token-file", help="A token that kbs-client admin-token printed."),
    ] = None,
) -> None:
    """Make or read the admin's token."""
    if auth_private_key is not None and admin_token_file is not None:
        raise UsageError("--auth-private-key and --admin-token-file exclude each other")
    connection: Connection = context.obj
    token = None
    if auth_private_key is not None:
        token = mint(auth_private_key)
    elif admin_token_file is not None:
        token = _read_text(admin_token_file, "the admin's token").strip()
        if not token.isascii() or not token.isprintable():
            raise ConfigError(f"{admin_token_file} holds no token")
    context.obj = Connection(connection.url, connection.cert_file, token)


@app.command("set-resource")
def set_resource(
    context: typer.Context,
    *,
    path: PathOption,
    resource_file: Annotated[Path, typer.Option("--resource-file", help="Its content.")],
    as_json: common.JsonFlag = False,
) -> None:
    """Store a resource, over an old one if there is one."""
    name = ResourcePath.parse(path)
    data = read_file(resource_file, "the resource")
    run_admin(context.obj, lambda admin: admin.set_resource(name, data))
    _done(f"stored {name}, {len(data)} bytes", {"path": path, "bytes": len(data)}, as_json=as_json)


@app.command("delete-resource")
def delete_resource(
    context: typer.Context, *, path: PathOption, as_json: common.JsonFlag = False
) -> None:
    """Delete a resource."""
    name = ResourcePath.parse(path)
    run_admin(context.obj, lambda admin: admin.delete_resource(name))
    _done(f"deleted {name}", {"path": path}, as_json=as_json)


@app.command("set-resource-policy")
def set_resource_policy(
    context: typer.Context,
    *,
    policy_file: Annotated[
        Path | None, typer.Option("--policy-file", help="A Rego policy of your own.")
    ] = None,
    allow_all: Annotated[
        bool, typer.Option("--allow-all", help="Insecure: everything to everybody who attests.")
    ] = False,
    deny_all: Annotated[bool, typer.Option("--deny-all", help="Nothing to nobody.")] = False,
    affirming: Annotated[
        bool,
        typer.Option("--affirming", help="Everything to attesters all of whose parts are good."),
    ] = False,
    default: Annotated[
        bool, typer.Option("--default", help="What a new KBS does: --affirming.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Set the policy that decides who gets which resource."""
    choices = {
        "allow-all": allow_all,
        "deny-all": deny_all,
        "affirming": affirming,
        "default": default,
        "file": policy_file is not None,
    }
    chosen = [name for name, wanted in choices.items() if wanted]
    if len(chosen) != 1:
        raise UsageError(
            "choose one policy",
            hint="--policy-file, --allow-all, --deny-all, --affirming or --default",
        )
    if policy_file is not None:
        text = _read_text(policy_file, "the policy")
    elif allow_all:
        text = ALLOW_ALL
        common.stderr.print(
            "warning: this releases every resource to whoever attests, with whatever verdict",
            style="yellow",
        )
    else:
        text = DENY_ALL if deny_all else defaults.text(defaults.RESOURCE)
    run_admin(context.obj, lambda admin: admin.set_resource_policy(text))
    _done(f"set the resource policy: {chosen[0]}", {"policy": chosen[0]}, as_json=as_json)


@app.command("set-attestation-policy")
def set_attestation_policy(
    context: typer.Context,
    *,
    policy_file: Annotated[Path, typer.Option("--policy-file", help="A Rego policy.")],
    policy_type: Annotated[  # noqa: ARG001 - Trustee's client has it; there is one language
        PolicyType, typer.Option("--type", help="Its language.")
    ] = PolicyType.REGO,
    policy_id: Annotated[
        str, typer.Option("--id", help="What it appraises: default_cpu, default_gpu.")
    ] = "default_cpu",
    as_json: common.JsonFlag = False,
) -> None:
    """Set a policy that appraises evidence."""
    text = _read_text(policy_file, "the policy")
    run_admin(context.obj, lambda admin: admin.set_attestation_policy(policy_id, text))
    _done(f"set the attestation policy {policy_id}", {"id": policy_id}, as_json=as_json)


@app.command("set-sample-reference-value")
def set_reference_value(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name, as policies ask for it.")],
    value: Annotated[str, typer.Argument(help="A value that passes.")],
    *,
    as_integer: Annotated[bool, typer.Option("--as-integer", help="A whole number.")] = False,
    as_bool: Annotated[bool, typer.Option("--as-bool", help="true or false.")] = False,
    as_single_value: Annotated[
        bool, typer.Option("--as-single-value", help="The value itself, not a list of one.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Register a reference value; unsigned, on the admin's word."""
    if as_integer and as_bool:
        raise UsageError("--as-integer and --as-bool exclude each other")
    typed = _typed(value, as_integer=as_integer, as_bool=as_bool)
    wanted = typed if as_single_value else [typed]
    run_admin(context.obj, lambda admin: admin.register_reference_values({name: wanted}))
    _done(f"registered {name}", {"name": name, "value": wanted}, as_json=as_json)


@app.command("set-reference-values")
def set_reference_values(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="reference-values.json of an image: name → accepted values.")
    ],
    *,
    add: Annotated[
        bool, typer.Option("--add", help="Accept what is registered already as well.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Register every reference value in a file, such as image build writes; on your word.

    A name that is registered already gets the file's values instead, or with --add beside
    the old ones. The member "inputs", which says what the values were computed from, is
    left out.
    """
    values: dict[str, Any] = json.decode(
        read_file(file, "the reference values", limit=2**20), dict[str, Any], str(file)
    )
    values.pop(_INPUTS, None)
    if not values:
        raise FormatError(f"{file} has no reference values")
    if not all(isinstance(accepted, list) for accepted in values.values()):
        raise FormatError(f"a reference value in {file} is not a list of accepted values")

    async def register(admin: KbsAdmin) -> None:
        if add:
            for name, accepted in values.items():
                values[name] = await _beside(admin, name, accepted)
        await admin.register_reference_values(values)

    run_admin(context.obj, register)
    names = sorted(values)
    _done(f"registered {', '.join(names)}", {"names": names}, as_json=as_json)


async def _beside(admin: KbsAdmin, name: str, values: list[Any]) -> list[Any]:
    try:
        known = await admin.get_reference_value(name)
    except NotFoundError:
        return values
    old = known if isinstance(known, list) else [known]
    return [*old, *(value for value in values if value not in old)]


@app.command("get-reference-value")
def get_reference_value(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option("--id", help="Its name.")],
    as_json: common.JsonFlag = False,  # noqa: ARG001 - a JSON value either way
) -> None:
    """Print a reference value, as JSON."""
    value = run_admin(context.obj, lambda admin: admin.get_reference_value(name))
    common.emit(value, lambda: None, as_json=True)


def _typed(value: str, *, as_integer: bool, as_bool: bool) -> str | int | bool:
    if as_bool:
        if value not in {"true", "false"}:
            raise FormatError(f"{value!r} is neither true nor false")
        return value == "true"
    if not as_integer:
        return value
    try:
        return int(value)
    except ValueError as error:
        raise FormatError(f"{value!r} is not a whole number") from error


def _read_text(path: Path, what: str) -> str:
    try:
        return read_file(path, what, limit=2**20).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}, {path}, is not UTF-8 text") from error


def _done(sentence: str, data: dict[str, Any], *, as_json: bool) -> None:
    common.emit(data, lambda: common.stdout.print(sentence, markup=False), as_json=as_json)
