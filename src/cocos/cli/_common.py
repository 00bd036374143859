# SPDX-License-Identifier: Apache-2.0
"""What every command line shares: the one error handler, logs, output, settings."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from typer.exceptions import TyperException

from cocos import __version__
from cocos.cli import _help, _names, _values
from cocos.cli._anywhere import in_place
from cocos.cli._screen import Screen
from cocos.errors import (
    CocosError,
    ConfigError,
    InternalError,
    UsageError,
    did_you_mean,
    problem_of,
    proposable,
)
from cocos.host.disk import disk_error, translated

stderr = Screen(stderr=True)
stdout = Screen(stderr=False)

_log = structlog.get_logger(__name__)

Settings = TypeVar("Settings", bound=BaseModel)
T = TypeVar("T")


def _here_or_before(context: typer.Context, value: bool) -> bool:
    """Honour --json of a command that comes before: kbs --json token-key list."""
    before = context.parent
    while not value and before is not None:
        value, before = bool(before.params.get("as_json")), before.parent
    return value


JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.", callback=_here_or_before)
]
ServerJsonFlag = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print where it listens, and all else that is no log, as JSON.",
        callback=_here_or_before,
    ),
]
LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="COCOS_LOG_LEVEL", help="debug, info, warning or error."),
]
DebugFlag = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of a failure and debug logs.")
]


def make_app(help_text: str) -> typer.Typer:
    """Return a Typer application with our defaults."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=False,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line to its end and exit; the only error handler there is.

    Known errors become a sentence, a hint and their exit code. Unknown ones become
    "internal error" and 70. ``--debug`` anywhere on the line shows the traceback.
    """
    debug = "--debug" in sys.argv[1:]
    as_json = "--json" in sys.argv[1:]
    try:
        command = typer.main.get_command(app)
        command.params.append(_version_option(name))
        _values.install(command)
        arguments = in_place(command, sys.argv[1:])
        _names.install(command)
        _help.install(command, name)
        if _help.is_bare(command, arguments):
            command([*arguments, "--help"], prog_name=name, standalone_mode=False)
            sys.exit(UsageError.exit_code)
        status = command(arguments, prog_name=name, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except TyperException as error:
        close: Any = getattr(error, "possibilities", None)  # Typer shows its class to nobody
        if close:
            error.possibilities = proposable(close)  # type: ignore[attr-defined]
        usage = UsageError(_usage_message(error), hint=_usage_hint(error, name))
        report(name, usage, as_json=as_json)
        sys.exit(usage.exit_code)
    except _FlagError as error:
        error.message = f"{_names.option_of(command, error.setting)}: {error.problem}"
        report(name, error, as_json=as_json)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; that is not our failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:  # noqa: BLE001 - the edge of the process
        if debug:
            stderr.print_exception()
        told = translated(error) or InternalError(
            f"internal error: {type(error).__name__}", hint="run it again with --debug"
        )
        report(name, told, as_json=as_json)
        sys.exit(told.exit_code)


def _version_option(name: str) -> Any:
    """Return the option that every program has, for the command that is the whole program."""

    def show(value: bool) -> None:
        if value:
            print(f"{name} {__version__}")  # noqa: T201
            raise typer.Exit

    holder = typer.Typer(add_completion=False)

    @holder.command()
    def never_run(
        *,
        version: Annotated[
            bool,
            typer.Option(
                "--version",
                help="Show the version and exit.",
                is_eager=True,
                expose_value=False,
                callback=show,
            ),
        ] = False,
    ) -> None: ...

    return typer.main.get_command(holder).params[0]


def _usage_message(error: TyperException) -> str:
    parameter: Any = getattr(error, "param", None)
    if parameter is None or not isinstance(error.__cause__, ValidationError):
        return error.format_message()
    argument = parameter.param_type_name == "argument"
    called = parameter.display_name_raw if argument else _names.shown(parameter.opts)[-1]
    return f"{called}: {problem_of(error.__cause__.errors()[0])}"


def _usage_hint(error: TyperException, name: str) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"{context.command_path if context else name} --help tells what there is"


def report(name: str, error: CocosError, *, as_json: bool) -> None:
    """Show an error to the user on standard error."""
    if as_json:
        body = {"error": error.code, "message": error.message, "hint": error.hint}
        print(json.dumps(body), file=sys.stderr)  # noqa: T201
        return
    stderr.print(f"{name}: {error.message}", markup=False, style="red")
    if error.hint:
        stderr.print(f"  hint: {error.hint}", markup=False)


def configure_logs(level: str, *, debug: bool = False) -> None:
    """Send structured logs to standard error, as key=value.

    Raises:
        ConfigError: no such level.
    """
    wanted = "debug" if debug else level
    number = logging.getLevelNamesMapping().get(wanted.upper())
    if number is None:
        raise ConfigError(f"{level!r} is no log level", hint="debug, info, warning or error")
    renderer: Any = (
        # Plain: a rich traceback would show local variables, which may be secrets.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True, bool_as_flag=False
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escaped,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _escaped(_logger: Any, _method: str, entry: structlog.typing.EventDict) -> Any:
    """Escape what strangers' text could do to a terminal; a traceback has its lines."""
    for name, value in entry.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if name == "exception" else ""
            entry[name] = "".join(
                letter if letter.isprintable() or letter in kept else repr(letter)[1:-1]
                for letter in value
            )
    return entry


def load_settings(
    shape: type[Settings],
    *,
    file: Path | None = None,
    members: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object],
) -> Settings:
    """Build frozen settings: flags win over the environment, that over the file.

    Args:
        shape: Frozen pydantic model; unknown members are an error.
        file: TOML, or JSON if its name ends in ``.json``.
        members: Setting name → value, as somebody else read them of a file or of the
            environment; None means not given.
        environment: Setting name → variable name.
        flags: Setting name → value; None means not given.

    Raises:
        UsageError: a flag's value cannot be one.
        ConfigError: names the setting of file or environment and what is wrong with it.
    """
    values: dict[str, object] = {}
    if file is not None:
        values.update(read_settings(file))
    values.update({name: value for name, value in (members or {}).items() if value is not None})
    for setting, variable in (environment or {}).items():
        if os.environ.get(variable):
            values[setting] = os.environ[variable]
    given = {setting: value for setting, value in flags.items() if value is not None}
    _judge(shape, given)
    values.update(given)
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "configuration"
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(place, shape.model_fields)
            raise ConfigError(f"there is no setting {place}", hint=hint) from error
        raise ConfigError(f"{place}: {problem_of(first)}") from error


class _FlagError(UsageError):
    """A setting that was given on the command line, whose option the handler knows."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


def _judge(shape: type[BaseModel], flags: Mapping[str, object]) -> None:
    """Refuse a flag's value by itself, before it can contradict what a file says."""
    for setting, value in flags.items():
        if setting not in shape.model_fields:
            continue
        kind: Any = shape.model_fields[setting].rebuild_annotation()
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise _FlagError(setting, problem_of(error.errors()[0])) from error


def read_settings(file: Path) -> dict[str, Any]:
    """Read a configuration file: JSON if its name ends so, else TOML.

    Raises:
        ConfigError: it cannot be read, or is not of that form.
    """
    if file.suffix in {".yaml", ".yml"}:
        raise ConfigError(
            f"{file} is YAML, which is not read here",
            hint="write the same settings as TOML, or as JSON into a file named .json",
        )
    form = "JSON" if file.suffix == ".json" else "TOML"
    try:
        text = file.read_text("utf-8")
        values: Any = (
            json.loads(text, object_pairs_hook=_distinct) if form == "JSON" else tomllib.loads(text)
        )
    except OSError as error:
        raise disk_error(error, f"cannot read {file}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not {form}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not a JSON object")
    return values


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice, as TOML does: the later one would win."""
    values = dict(members)
    if len(values) != len(members):
        raise ValueError("a name stands twice in an object")
    return values


@contextlib.contextmanager
def reading(*kinds: type[CocosError], path: Path) -> Iterator[None]:
    """Name the file in errors of those who read its content and do not know where it is from."""
    try:
        yield
    except kinds as error:
        if str(path) not in error.message:
            error.message = f"{path}: {error.message}"
        raise


def emit(data: object, human: Callable[[], None], *, as_json: bool) -> None:
    """Print a command's result: JSON on standard output, or what ``human`` prints."""
    if as_json:
        print(json.dumps(data, default=str))  # noqa: T201
    else:
        human()


def announce(name: str, address: str, *, as_json: bool) -> None:
    """Say on standard output that a server answers now, and where.

    Whoever started it waits for this line instead of guessing.
    """
    line = json.dumps({"listening": address}) if as_json else f"{name}: listening on {address}"
    print(line, flush=True)  # noqa: T201
    _notify_systemd()


def _notify_systemd() -> None:
    """Tell a service manager that asked for it that we are ready; sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in {"/", "@"}:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer, contextlib.suppress(OSError):
        peer.connect("\0" + path[1:] if path[0] == "@" else path)
        peer.send(b"READY=1")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as a program."""
    return asyncio.run(main)


async def wait_for_signal() -> None:
    """Return when the process is asked to stop by SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
