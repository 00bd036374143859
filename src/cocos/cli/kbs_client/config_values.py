# SPDX-License-Identifier: Apache-2.0
"""``kbs-client config``: the reference values of a KBS."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cocos._types import JsonObject
from cocos.cli import _common as common
from cocos.cli._screen import visible
from cocos.cli.kbs_client.admin import done, run_admin
from cocos.clients.kbs import KbsAdmin
from cocos.clients.reference_values import change as change_value
from cocos.errors import FormatError, UsageError
from cocos.host.files import read_input
from cocos.wire import json
from cocos.wire.reference_values import dump, parse

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
        Path,
        typer.Argument(
            help="reference-values.json of an image: name → value; or, with expiration, what "
            "list-reference-values --json prints."
        ),
    ],
    *,
    add: Annotated[
        bool, typer.Option("--add", help="Accept what is registered already as well.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Register every reference value in a file, such as image build writes; on your word.

    A name that is registered already gets the file's values instead, or with --add beside
    the old ones. A value may have its expiration beside it; Trustee's KBS lets every value
    expire in a year. The member "inputs" of an image's file is left out.
    """
    values = parse(read_input(file, "the reference values", limit=2**20), str(file))
    if not values:
        raise FormatError(f"{file} has no reference values")

    async def register(admin: KbsAdmin) -> None:
        if not add and all(expires is None for _, expires in values.values()):
            await admin.register_reference_values(
                {name: value for name, (value, _) in values.items()}
            )
            return
        for name, (value, expires) in values.items():
            change = partial(_beside, name, value) if add else partial(_instead, value)
            await change_value(admin, name, change, expires)

    run_admin(context.obj, register)
    names = sorted(values)
    done(f"registered {', '.join(names)}", {"names": names}, as_json=as_json)


def _instead(value: Any, _known: Any) -> Any:
    return value


def _beside(name: str, value: Any, known: Any) -> Any:
    """Return what is accepted when a value is added to what is known, if anything is."""
    if known is None or known == value:
        return value
    if not isinstance(known, list) or not isinstance(value, list):
        raise FormatError(
            f"{name} is one value, not a list of accepted ones: nothing can be added",
            hint="without --add the file's value takes its place",
        )
    return [*known, *(each for each in value if each not in known)]


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
    common.emit(dump(listed), lambda: None, as_json=True)


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
