"""Mutants of the science: change one operator or number at a time and ask the tests nearest to it whether they see it.

Run by ``make mutants``; ``tools/mutants.py FILE ...`` does some files only. Each file is one pytest process that
imports the tests once and forks for every mutant; only tests that call the changed function run, the fastest first. A
survivor is either a missing test or equivalent to the original, and then listed, with the reason, in
``tools/equivalent_mutants.txt``. Exit code 1 if there are others.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
ALSO = {  # tests beside tests/FOLDER/test_NAME.py
    "losses/contrastive": ["methods/test_contrastive_mmcl"],
}
FILES = [
    *(f"losses/{name}" for name in ("adversarial", "contrastive", "coral", "factorization")),
    *("losses/mutual_information", "data/missing", "data/loading", "training/fit"),
    *(f"evaluation/{name}" for name in ("metrics", "statistics", "bootstrap")),
]
TARGETS = {
    f"mmsa_lib/{name}.py": [
        str(path)
        for test in [name.replace("/", "/test_"), *ALSO.get(name, [])]
        if (path := ROOT / "tests" / f"{test}.py").exists()
    ]
    for name in FILES
}
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "mean", "mean": "sum", "argmin": "argmax"}
NAMES |= {"argmax": "argmin", "amax": "amin", "amin": "amax", "maximum": "minimum", "minimum": "maximum"}
DROPPED = {"detach", "abs", "sqrt", "softmax", "clamp", "exp", "log", "sigmoid", "tanh", "square"}  # x.f() to x
MODULES = {"torch", "np", "math", "F"}  # math.f(x) to x
WIDE = 120  # letters of the expression that is shown around a change
CPU_SECONDS = 60  # of one mutant, beside ten times what its tests take; more is an endless loop, and seen


def mutants(source: str) -> Iterator[tuple[int, str, str, ast.Module]]:
    """Line, function, ``before -> after`` and tree of every mutant of ``source``."""
    number = 0
    while True:
        change = _Change(number)
        tree = ast.fix_missing_locations(change.visit(ast.parse(source)))
        if change.what is None:
            return
        yield change.line, change.where, change.what, tree
        number += 1


class _Change(ast.NodeTransformer):
    """Make change ``number`` of all that can be made."""

    def __init__(self, number: int):
        self.left, self.scope, self.around = number, [], []
        self.line, self.where, self.what = 0, "", None

    def visit(self, node: ast.AST) -> ast.AST:
        if self.what is not None or isinstance(node, ast.JoinedStr | ast.Raise):  # messages are not science
            return node
        if isinstance(node, ast.keyword) and node.arg in ("strict", "copy"):  # guards against what can't be, and speed
            return node
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if named:
            node.decorator_list, decorators = [], node.decorator_list
            self.scope.append((node.name, isinstance(node, ast.FunctionDef)))
        if isinstance(node, ast.AnnAssign | ast.arg):
            node.annotation, annotation = ast.Constant(None), node.annotation
        for build in self.changes(node):
            if self.left == 0 and self.what is None:
                before, around = ast.unparse(node), [ast.unparse(outer) for outer in self.around]
                node = build()
                self.line, self.where = node.lineno, self.owner()
                self.what = f"{before} -> {ast.unparse(node)}"
                if isinstance(node, ast.If | ast.While):
                    self.what = f"if {ast.unparse(node.test)}"
                self.what += next((f" in {text}" for text in around if before != text and len(text) < WIDE), "")
                self.what = " ".join(self.what.split())  # on one line, as equivalent ones are listed
            self.left -= 1
        self.around.append(node)
        node = self.generic_visit(node) if self.what is None else node
        self.around.pop()
        if named:
            node.decorator_list = decorators
            self.scope.pop()
        if isinstance(node, ast.AnnAssign | ast.arg):
            node.annotation = annotation
        return node

    def owner(self) -> str:
        """The outermost function with its classes, the class, or the module (an empty name) that holds the change."""
        inside = [i for i, (_, function) in enumerate(self.scope, 1) if function]
        return ".".join(name for name, _ in self.scope[: inside[0] if inside else None])

    def changes(self, node: ast.AST) -> Iterator:
        """Functions that each build one changed copy of ``node``."""

        def put(**fields):
            return lambda: ast.copy_location(type(node)(**{**dict(ast.iter_fields(node)), **fields}), node)

        def instead(other):
            return lambda: ast.copy_location(other, node)

        if isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                yield put(ops=[*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]])
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
            yield put(op=SWAPS[type(node.op)]())
        elif isinstance(node, ast.UnaryOp):
            # -1 is nearly always the last axis, and that of two is 1 as well; its 1 is changed all the same.
            if not (isinstance(node.operand, ast.Constant) and node.operand.value == 1):
                yield instead(node.operand)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield put(value=not node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield put(value=node.value + 1 if isinstance(node.value, int) or not node.value else node.value * 2)
        elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare):
            yield put(test=ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield instead(ast.Pass())
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED:
            owner = node.func.value
            yield instead(node.args[0] if isinstance(owner, ast.Name) and owner.id in MODULES else owner)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in NAMES:
                key = "id" if isinstance(node.func, ast.Name) else "attr"
                fields = {**dict(ast.iter_fields(node.func)), key: NAMES[name]}
                yield put(func=ast.copy_location(type(node.func)(**fields), node.func))


class Mutants:
    """A pytest plugin that, in the place of running the tests, runs them on each mutant of ``path``."""

    def __init__(self, path: str):
        self.path, self.source = path, (ROOT / path).read_text()
        self.module = path.removesuffix(".py").replace("/", ".")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        importlib.import_module(self.module)
        failed, tests = _forked(lambda: self.baseline(session.items))
        if failed or not _forked(lambda: self.run(ast.parse(self.source), "", session.items)):
            raise pytest.UsageError(f"tests fail without any mutant {failed}")
        functions = {name for _, called in tests.values() for name in called}
        items = {item.nodeid: item for item in session.items}
        known = {line.split(" | ")[0] for line in EQUIVALENT.read_text().splitlines() if not line.startswith("#")}
        survivors = count = 0
        for line, where, what, tree in mutants(self.source):
            # What no test calls may still be read when a module is imported: ask all tests.
            asked = [name for name, (_, called) in tests.items() if where in called or where not in functions]
            seconds = {name: tests[name][0] for name in asked}
            chosen = [items[name] for name in sorted(seconds, key=seconds.get)]
            limit = CPU_SECONDS + 10 * sum(seconds.values())
            count += 1
            if _forked(lambda tree=tree, where=where, chosen=chosen: self.run(tree, where, chosen), limit) is True:
                listed = f"{self.path}:{where}: {what}" in known
                survivors += not listed
                print(f"{'equivalent' if listed else 'SURVIVED'} {self.path}:{line}:{where}: {what}", flush=True)
        print(f"{self.path}: {count} mutants, {survivors} survived")
        session.testsfailed = survivors
        return True

    def baseline(self, items) -> tuple[str, dict[str, tuple[float, set[str]]]]:
        """Name of a test that fails, if one does; seconds and called functions of each."""
        found, file = {}, str(ROOT / self.path)
        for item in items:
            called = set()

            def profile(frame, event, _, called=called):
                if event == "call" and frame.f_code.co_filename == file:
                    called.add(frame.f_code.co_qualname.split(".<locals>")[0])

            started = time.process_time()
            sys.setprofile(profile)
            good = _passes(item)
            sys.setprofile(None)
            if not good:
                return item.nodeid, {}
            found[item.nodeid] = time.process_time() - started, called
        return "", found

    def run(self, tree: ast.Module, where: str, items) -> bool:
        """Whether no test sees the mutant."""
        module = sys.modules[self.module]
        try:
            _put(module, tree, where)
        except Exception:  # it can't even be imported
            return False
        return all(_passes(item) for item in items)


def _put(module, tree: ast.Module, where: str) -> None:
    """Bring the changed function, or the changed values of the module, into the modules that are loaded."""
    fresh = {"__name__": module.__name__, "__file__": module.__file__, "__package__": module.__package__}
    exec(compile(tree, module.__file__, "exec"), fresh)
    old, new = module, None
    for part in where.split(".") if where else ():
        old = vars(old)[part]
        new = (fresh if new is None else vars(new))[part]
        if not isinstance(old, type):
            break
    old, new = _function(old), _function(new)
    if new is not None and hasattr(old, "__code__"):
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
    elif isinstance(old, type):  # a value of a class
        for name, value in vars(new).items():
            if not callable(value) and not name.startswith("__"):
                setattr(old, name, value)
        if "__init__" in vars(new):  # of a dataclass
            old.__init__.__defaults__ = new.__init__.__defaults__
    if not hasattr(old, "__code__"):
        for name, value in list(vars(module).items()):
            if name in fresh and not name.startswith("__") and not callable(value):
                for other in [m for n, m in sys.modules.items() if n.startswith(("mmsa_lib", "test_"))]:
                    if vars(other).get(name) is value:
                        setattr(other, name, fresh[name])


def _function(value):
    value = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    return value


def _passes(item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, nextitem=None, log=False))


def _forked(work, cpu_seconds: float = 0):
    """What ``work()`` returns in a forked child; ``None`` if the child died."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer else None


def one(path: str) -> int:
    """Run the mutants of one file; the exit code."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--capture=no", "-m", "not slow"]
    return int(pytest.main([*options, *TARGETS[path]], plugins=[Mutants(path)]) != 0)


def main(paths: list[str]) -> int:
    """Run the mutants of ``paths``, or of all targets, ``MUTANT_JOBS`` files at a time."""
    if len(paths) == 1:
        return one(paths[0])
    command = [sys.executable, __file__]
    with ThreadPoolExecutor(int(os.environ.get("MUTANT_JOBS", "1"))) as pool:
        run = functools.partial(subprocess.run, check=False, cwd=ROOT)
        return int(any(done.returncode for done in pool.map(lambda path: run([*command, path]), paths or TARGETS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
