"""Writes the stubs that tell type checkers what Python makes only when gpunn is imported.

Methods are attached to Tensor by the modules that define them, rows become functions in a call
of `unary` or `binary`, and some names are imported on first use. The stubs take all signatures
from the functions themselves. `python -m tests.typed.make_stubs` writes them anew; a test says
when that is due.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import os
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gpunn
from gpunn.ops import legacy
from gpunn.tensor import Tensor

ROOT = Path(__file__).parent.parent.parent
HEAD = '"""Written by `python -m tests.typed.make_stubs`: {what}"""\n\n'
METHODS = """
# mypy: disable-error-code=misc
# (the first parameter is a Tensor, to which they are attached)

class Methods:
"""
_ANY = ("Any", "from typing import Any")


class Names(ast.NodeTransformer):
    """Names in an annotation become names that the stub imports; builtins say that they are."""

    def __init__(self, space: dict[str, Any], imports: set[str]) -> None:
        self.space, self.imports = space, imports

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = self.space.get(node.id, getattr(builtins, node.id, None))
        if found is None:
            found = getattr(gpunn, node.id)  # imported for type checkers alone
        if getattr(builtins, node.id, None) is found:
            self.imports.add("import builtins")
            return ast.parse(f"builtins.{node.id}", mode="eval").body
        if isinstance(found, ModuleType):
            self.imports.add(f"import {found.__name__} as {node.id}")
        elif found is Any:
            self.imports.add(_ANY[1])
        else:
            module = getattr(found, "__module__", None)
            origin = typing.get_origin(found)
            if module is None or origin is not None:
                module = self.space["__name__"]
            self.imports.add(f"from {module} import {node.id}")
        return node


def annotation(value: Any, space: dict[str, Any], imports: set[str]) -> str:
    """An annotation as the stub writes it; Any where the function says nothing."""
    if value is inspect.Parameter.empty:
        imports.add(_ANY[1])
        return _ANY[0]
    if value is None or value is type(None):
        return "None"
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    text = text.replace("gpunn.tensor.", "")
    tree = ast.parse(text, mode="eval")
    return ast.unparse(Names({"Tensor": Tensor, **space}, imports).visit(tree))


def signature(function: Callable[..., Any], imports: set[str], method: bool = False) -> str:
    """`(parameters) -> type` of a function, as the stub writes it."""
    space = inspect.unwrap(function).__globals__
    found = inspect.signature(function)
    parameters = []
    for index, p in enumerate(found.parameters.values()):
        if method and index == 0:
            parameters.append(p.replace(annotation=Verbatim("Tensor")))
            continue
        kind = annotation(p.annotation, space, imports)
        default = p.empty if p.default is p.empty else Verbatim("...")
        parameters.append(p.replace(annotation=Verbatim(kind), default=default))
    returns = Verbatim(annotation(found.return_annotation, space, imports))
    return str(found.replace(parameters=parameters, return_annotation=returns))


def definition(name: str, function: Callable[..., Any], imports: set[str]) -> str:
    """A function of a namespace; one that also returns indices when asked is two overloads."""
    text = f"def {name}{signature(function, imports)}: ...\n"
    asked = "return_indices: builtins.bool = ..."
    if asked not in text or not text.endswith("Any: ...\n") or name.endswith("_with_indices"):
        return text
    imports.add("from typing import Literal, overload")
    plain = text.replace(asked, "return_indices: Literal[False] = ...")
    plain = plain.removesuffix("Any: ...\n") + "Tensor: ...\n"
    return f"@overload\n{plain}@overload\n{text}"


class Verbatim(str):
    """Text that a signature prints as it is."""

    __slots__ = ()
    __repr__ = str.__str__


def origins(module: ModuleType) -> dict[str, tuple[str, str]]:
    """Where the public names of a module of re-exports come from: name -> (module, name there)."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("gpunn"):
            continue
        for alias in node.names:
            if alias.name != "*":
                found[alias.asname or alias.name] = node.module, alias.name
                continue
            for name in importlib.import_module(node.module).__all__:
                found[name] = node.module, name
    for name, home in vars(module).get("_ON_FIRST_USE", {}).items():
        found[name] = home.rpartition(".")[0], home.rpartition(".")[2]
    for name, home in vars(module).get("_FUNCTIONS_ON_FIRST_USE", {}).items():
        found[name] = home, name
    return {name: home for name, home in sorted(found.items())
            if not name.startswith("_") or name.startswith("__")}  # fmt: skip


def is_written_out(home: str, name: str) -> bool:
    """Whether a module defines this function with `def`, rather than makes it with a call."""
    body = ast.parse(inspect.getsource(importlib.import_module(home))).body
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    return bool(found) and "return_indices" not in ast.unparse(found[-1].args)


def namespace_stub(module: ModuleType, what: str) -> str:
    """The stub of a module of re-exports."""
    imports: set[str] = set()
    exports, functions = [], []
    for name, (home, there) in origins(module).items():
        value = getattr(module, name)
        if isinstance(value, legacy.tensortype):
            imports.add("from gpunn.ops.legacy import tensortype")
            functions.append(f"{name}: tensortype\n")
        elif inspect.isfunction(value) and (name != there or not is_written_out(home, there)):
            functions.append(definition(name, value, imports))
        elif name == there:
            exports.append(f"from {home} import {name} as {name}\n")
        else:
            exports.append(f"from {home} import {there} as _{there}\n")
            functions.append(f"{name} = _{there}\n")
    if hasattr(module, "__version__"):
        functions.append("\n__version__: str\n")
    imports -= {line.partition(" as ")[0].strip() for line in exports}  # a second, private import
    lines = [HEAD.format(what=what), *_sorted(imports), *exports, "\n", *functions]
    return "".join(lines)


def methods_stub() -> str:
    """The stub of what `gpunn/ops` and `gpunn/nn` attach to Tensor."""
    for name in origins(gpunn):
        getattr(gpunn, name)  # some methods come with modules that are imported on first use
    body = ast.parse(inspect.getsource(Tensor)).body[0]
    written = {n.name for n in ast.walk(body) if isinstance(n, ast.FunctionDef)}
    assigned = [node for node in ast.walk(body) if isinstance(node, ast.Assign)]
    written |= {ast.unparse(target) for node in assigned for target in node.targets}
    written |= {ast.unparse(n.target) for n in ast.walk(body) if isinstance(n, ast.AnnAssign)}
    imports = {"from gpunn.tensor import Tensor"}
    lines = []
    for name, value in sorted(vars(Tensor).items()):
        if name.startswith("_") or name in written:
            continue
        if isinstance(value, property):
            kind = annotation(inspect.signature(value.fget).return_annotation,
                              value.fget.__globals__, imports)  # fmt: skip
            lines.append(f"    @property\n    def {name}(self) -> {kind}: ...\n")
            if value.fset is not None:
                lines.append(f"    @{name}.setter\n")
                lines.append(f"    def {name}(self, value: {kind}) -> None: ...\n")
        elif inspect.isfunction(value):
            lines.append(f"    def {name}{signature(value, imports, method=True)}: ...\n")
    what = "the methods of Tensor that other modules attach."
    head = [HEAD.format(what=what), *_sorted(imports), METHODS]
    return "".join([*head, *lines])


def _sorted(imports: set[str]) -> list[str]:
    return [f"{line}\n" for line in sorted(imports, key=lambda line: (line[0] == "f", line))]


def stubs() -> dict[Path, str]:
    """The text of each stub, by its path in the checkout."""
    functional = importlib.import_module("gpunn.nn.functional")
    return {
        Path("gpunn/__init__.pyi"): namespace_stub(gpunn, "the public names of gpunn."),
        Path("gpunn/nn/functional.pyi"): namespace_stub(functional, "the functions of layers."),
        Path("gpunn/linalg/__init__.pyi"): namespace_stub(gpunn.linalg, "linear algebra."),
        Path("gpunn/special/__init__.pyi"): namespace_stub(gpunn.special, "special functions."),
        Path("gpunn/tensor_methods.pyi"): methods_stub(),
    }


def write() -> None:
    """Writes the stubs beside the modules."""
    for path, text in stubs().items():
        fresh = (ROOT / path).with_suffix(".pyi.new")
        fresh.write_text(text)
        os.replace(fresh, ROOT / path)
        print(path, len(text.splitlines()), "lines")


if __name__ == "__main__":
    write()
