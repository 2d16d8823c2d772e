"""The one-way order of imports, what may import what of the outside, and the size of files: read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import meeseeks

PACKAGE = Path(meeseeks.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

MAY_IMPORT = {
    "errors": set(),
    "clock": set(),
    "core": {"errors"},
    "config": {"errors", "core"},
    "wire": {"errors", "core"},
    "executor": {"errors", "clock", "core", "wire", ""},
    "node": {"errors", "clock", "core", "wire", "executor", "config", ""},
    "client": {"errors", "core", "wire", "config", ""},
    "cli": {"errors", "core", "wire", "executor", "node", "client", "config", ""},
    "": {"errors", "client"},
}
"""Room by room; "" is meeseeks/__init__.py, for `__version__` and the public names."""

CORE_MAY_NOT = {"zmq", "threading", "subprocess", "socket", "time", "os", "asyncio", "sqlite3", "pathlib", "logging"}
CORE_MAY_NOT |= {"select", "selectors", "signal", "multiprocessing", "random", "secrets", "io", "tempfile", "shutil"}
OUTSIDE = {
    "errors": set(),
    "clock": set(),
    "core": {"msgspec"},
    "config": {"msgspec", "platformdirs"},
    "wire": {"msgspec", "zmq"},
    "executor": {"msgspec"},
    "node": {"msgspec"},
    "client": {"msgspec"},
    "cli": {"msgspec", "click", "rich", "platformdirs"},
    "": set(),
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> list[tuple[str, ast.stmt]]:
    """The absolute names of the modules that a file imports, wherever it does."""
    package = ["meeseeks", *path.relative_to(PACKAGE).parts[:-1]]
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from meeseeks import config` means meeseeks.config; so does `from . import x`
            deeper = [f"{name}.{alias.name}" for alias in node.names if _is_module(f"{name}.{alias.name}")]
            found += [(item, node) for item in deeper or [name]]
    return found


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("meeseeks.") and (path.is_dir() or path.with_suffix(".py").is_file())


def each(*rooms: str):
    """One test for all files (of these rooms), that says what is wrong with each of them."""
    chosen = [path for path in MODULES if not rooms or room_of(path) in rooms]

    def decorate(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for path in chosen:
                try:
                    check(path)
                except AssertionError as error:
                    wrong.append(f"{path.relative_to(PACKAGE)}: {error}")
            assert chosen
            assert not wrong, "\n".join(wrong)

        return test

    return decorate


def test_every_room_is_known():
    assert {room_of(path) for path in MODULES} == set(MAY_IMPORT)


@each()
def test_imports_go_one_way(path):
    room = room_of(path)
    for name, node in imports_of(path):
        if name.split(".")[0] != "meeseeks":
            continue
        other = name.split(".")[1] if "." in name else ""
        assert other == room or other in MAY_IMPORT[room], f"line {node.lineno}: {room or 'meeseeks'} imports {name}"


@each()
def test_only_what_is_declared_is_imported_from_outside(path):
    for name, node in imports_of(path):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top != "meeseeks":
            assert top in OUTSIDE[room_of(path)], f"line {node.lineno}: {name}"
            allowed = top != "zmq" or path.name in ("sockets.py", "transfer.py")
            assert allowed, f"line {node.lineno}: only wire/sockets.py and wire/transfer.py import zmq"


@each("core")
def test_the_core_does_no_io_and_takes_the_time_as_an_argument(path):
    for name, node in imports_of(path):
        assert name.split(".")[0] not in CORE_MAY_NOT, f"line {node.lineno}: {name}"
    calls = [node.func.id for node in ast.walk(tree_of(path)) if _is_named_call(node)]
    assert not {"open", "print", "input", "exec", "eval"} & set(calls)


def _is_named_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@each("client", "executor", "wire", "config")
def test_no_asyncio_outside_of_tunnels(path):
    if path not in (PACKAGE / "wire" / "tunnels.py", PACKAGE / "wire" / "tunnel_streams.py"):
        assert "asyncio" not in {name.split(".")[0] for name, _ in imports_of(path)}


@each("errors", "core", "config", "wire", "executor", "node", "client")
def test_imports_stand_at_the_top(path):
    tree = tree_of(path)
    top = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            inside = [n for n in ast.walk(function) if id(n) in top]
            assert not inside, f"line {inside[0].lineno}: an import inside {function.name}"


@each()
def test_every_module_says_what_is_public(path):
    tree = tree_of(path)
    code = [node for node in tree.body if not isinstance(node, ast.Expr)]
    targets = [t for n in code if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in code if isinstance(n, ast.AnnAssign)]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    assert not code or "__all__" in names


@each()
def test_every_module_begins_with_what_it_is_for(path):
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree)


@each()
def test_a_file_is_one_noun(path):
    lines = path.read_text().count("\n")
    assert lines <= 400, f"{lines} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} has too many lines"


@each()
def test_no_error_is_swallowed(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            empty = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            assert not (broad and empty), f"line {node.lineno}: it swallows every error"
