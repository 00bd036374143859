# SPDX-License-Identifier: Apache-2.0
"""The rules of DESIGN §3 about who may import whom, and how large things may get."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
LAYERS = [
    {"errors", "_types", "_clock", "_recent", "_apart", "_patience", "crypto"},
    {"wire", "evidence"},
    {"verifiers", "attesters", "policy", "tokens"},
    {"clients", "host", "stores", "transport"},
    {
        "kbs",
        "attestation_service",
        "attestation_agent",
        "keyprovider",
        "confidential_data_hub",
        "api_server_rest",
        "agent",
        "cvms",
        "manager",
        "image",
    },
    {"cli"},
]
SERVICES = LAYERS[4]
PURE = set().union(*LAYERS[:3])
IMPURE_MODULES = {"socket", "subprocess", "http", "urllib.request", "httpx", "grpc", "sqlalchemy"}
ROOMS_OF_HOST: dict[str, set[str]] = {
    "containers": set(),
    "devices": set(),
    "images": {"containers", "tools"},
    "machines": set(),
    "policies": set(),
    "root_keys": set(),
    "tools": set(),
}
"""Room → the rooms that it may import from; the modules beside the rooms are for all of them."""
PROVIDED = {"google", "pydantic", "tpm2_pytss"}
"""Come with declared libraries (grpcio-health-checking, pydantic-settings), or from Debian."""
MODULE_LINES = 400
FUNCTION_LINES = 60
FOLDER_MODULES = 20


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((SOURCE / "cocos").rglob("*.py")):
        if "_generated" in path.parts:
            continue
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Names that a module imports, wherever in the module the statement stands."""
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} uses a relative import"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in MODULES else module


def package(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def layer(name: str) -> int:
    own = package(name)
    for number, members in enumerate(LAYERS):
        if own in members:
            return number
    return 0 if not own else pytest.fail(f"{name} is in no layer of DESIGN §3")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    for other in imports(name):
        if not other.startswith("cocos"):
            continue
        assert layer(other) <= layer(name), f"{name} imports {other} from a higher layer"
        if package(name) in SERVICES and package(other) in SERVICES:
            assert package(name) == package(other), f"{name} imports its sibling {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if package(name) in PURE])
def test_lower_layers_do_no_io(name: str) -> None:
    # Generated gRPC stubs import grpc; our wire modules do not call it.
    used = {other for other in imports(name) if not other.startswith("cocos")}
    roots = used | {other.split(".")[0] for other in used}
    assert not roots & IMPURE_MODULES, f"{name} does I/O"


@pytest.mark.parametrize("name", MODULES)
def test_only_host_starts_processes(name: str) -> None:
    if package(name) in {"host", "cli"}:
        return
    assert "subprocess" not in set(imports(name)), f"{name} starts processes"
    text = MODULES[name].read_text("utf-8")
    assert "create_subprocess" not in text, f"{name} starts processes"
    assert "os.fork" not in text, f"{name} starts processes"


def test_only_the_clock_reads_the_time() -> None:
    for name, path in MODULES.items():
        if package(name) in PURE - {"_clock"}:
            text = path.read_text("utf-8")
            assert "time.time()" not in text, name
            assert ".now(" not in text, name


def room(name: str) -> str:
    """Return the room of ``host`` that a module is in; empty for one beside them."""
    parts = MODULES[name].relative_to(SOURCE).parts
    return parts[2] if parts[:2] == ("cocos", "host") and len(parts) > 3 else ""


def test_rooms_of_host() -> None:
    assert {room(name) for name in MODULES} == {"", *ROOMS_OF_HOST}
    for name in MODULES:
        if package(name) != "host":
            continue
        for other in filter(MODULES.__contains__, imports(name)):
            if room(other) and room(other) != room(name):
                assert room(name), f"{name}, beside the rooms, imports {other}"
                assert room(other) in ROOMS_OF_HOST[room(name)], f"{name} imports {other}"


def test_modules_that_programs_in_strings_import_are_there() -> None:
    root = SOURCE.parent
    files = [
        path for top in ("src", "tests", "tools", "bench") for path in (root / top).rglob("*.py")
    ]
    statement = re.compile(r"\bfrom (cocos[\w.]*) import (\w+)")
    for path in files:
        for module, name in statement.findall(path.read_text("utf-8")):
            if f"{module}.{name}" in MODULES or "_generated" in module:
                continue
            assert module in MODULES, f"{path} imports {name} from {module}, which is not there"
            text = MODULES[module].read_text("utf-8")
            assert re.search(rf"\b{name}\b", text), f"{path}: {module} has no {name}"


def test_no_folder_is_full() -> None:
    root = SOURCE.parent
    for top in ("src", "tests", "tools", "bench"):
        for folder in [root / top, *(p for p in (root / top).rglob("*") if p.is_dir())]:
            count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
            assert count <= FOLDER_MODULES, f"{folder} has {count} modules: give them rooms"


def test_every_library_is_declared() -> None:
    """What only the tests install is missing where somebody installs the package."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in project["dependencies"]}
    providers = packages_distributions()
    for name in MODULES:
        for other in imports(name):
            top = other.split(".")[0]
            if top == "cocos" or top in sys.stdlib_module_names or top in PROVIDED:
                continue
            known = {each.lower().replace("_", "-") for each in providers.get(top, [])}
            assert declared & known, f"{name} imports {top}, which is not declared"


def test_no_cycles() -> None:
    graph = {
        name: {other for other in imports(name) if other in MODULES and other != name}
        for name in MODULES
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for other in graph[name]:
            visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", MODULES)
def test_sizes(name: str) -> None:
    text = MODULES[name].read_text("utf-8")
    assert text.count("\n") <= MODULE_LINES, f"{name} is too long"
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n"), name
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{name}.{node.name} has {length} lines"
