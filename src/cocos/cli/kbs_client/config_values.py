# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: the reference values of a KBS."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cocos._types import JsonObject
from cocos.cli import _common as common
from cocos.cli._screen import visible
from cocos.cli.kbs_client.admin import done, run_admin
from cocos.clients.kbs import KbsAdmin
from cocos.errors import FormatError, NotFoundError, UsageError
from cocos.host.files import read_input
from cocos.wire import json

_INPUTS = "inputs"

app = common.make_app("Reference values.")


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
    done(f"registered {name}", {"name": name, "value": wanted}, as_json=as_json)


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
        read_input(file, "the reference values", limit=2**20), dict[str, Any], str(file)
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
    done(f"registered {', '.join(names)}", {"names": names}, as_json=as_json)


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


@app.command("get-reference-values")
def get_reference_values(
    context: typer.Context,
    *,
    as_json: common.JsonFlag = False,  # noqa: ARG001 - a JSON object either way
) -> None:
    """Print every reference value by its name, as JSON that set-reference-values takes."""
    listed = run_admin(context.obj, lambda admin: admin.list_reference_values())
    values = {value["name"]: value["value"] for value in listed}
    common.emit(values, lambda: None, as_json=True)


@app.command("list-reference-values")
def list_reference_values(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print every reference value, and when it expires."""
    listed: list[JsonObject] = run_admin(context.obj, lambda admin: admin.list_reference_values())
    common.emit(listed, lambda: _show_values(listed), as_json=as_json)


@app.command("delete-reference-value")
def delete_reference_value(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option("--id", help="Its name.")],
    as_json: common.JsonFlag = False,
) -> None:
    """Delete a reference value: what policies ask for is then not there."""
    run_admin(context.obj, lambda admin: admin.delete_reference_value(name))
    done(f"deleted the reference value {name}", {"name": name}, as_json=as_json)


def _show_values(listed: list[JsonObject]) -> None:
    table = Table("name", "value", "expires")
    for value in listed:
        shown = json.encode(value["value"]).decode()
        # Names and values are whoever registered them.
        table.add_row(*(visible(str(text)) for text in (value["name"], shown, value["expiration"])))
    if table.row_count:
        common.stdout.print(table)


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
