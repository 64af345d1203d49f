"""PyTorch's public names of nn: each is here with its parameters, or the README says why not."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import gpunn

README = (Path(__file__).parents[2] / "README.md").read_text()
PARTS = ("nn.functional", "nn.init", "nn.parameter", "nn.grad")
FOLDERS = ("nn.modules", "nn.utils")
OURS = {"out", "reduce_scalars"}  # parameters that some functions have beside PyTorch's
FOR_COMPILERS = {"nn.functional.boolean_dispatch", "nn.functional.assert_int_or_pair"}


def torch():
    return pytest.importorskip("torch", reason="parity tests need PyTorch")


def listed():
    """The names of the README's list of what is lacking, each with its reason."""
    section = README.partition("### What PyTorch's `nn` has and gpunn has not")[2]
    lines = re.findall(r"^- (`.+`): (.+)$", section.partition("\n#")[0], re.M)
    found = {name: reason for names, reason in lines for name in re.findall(r"`([^`]+)`", names)}
    return {re.sub(r"^F\.", "nn.functional.", name): reason for name, reason in found.items()}


def find(package, path):
    """What a package has under a full name; None where it has nothing."""
    value = package
    for part in path.split("."):
        if inspect.ismodule(value) and not hasattr(value, part):
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except ImportError:
                return None
        value = getattr(value, part, None)
    return value


def own(module):
    """The public functions and classes of a module of PyTorch, not what it imports."""
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or ""
        built_in = module.__name__ == "torch.nn.functional" and home in ("torch", "torch._C._nn")
        if name[0] != "_" and (inspect.isclass(value) or callable(value)) and (
            home == module.__name__ or (built_in and not inspect.isclass(value))
        ) and not re.search("TypeVar|EnumType", str(type(value))):  # fmt: skip
            yield name, value


def pytorch_files():
    """Full names of the files of nn that hold public names."""
    inside = (pkgutil.iter_modules(find(torch(), folder).__path__, f"{folder}.")
              for folder in FOLDERS)  # fmt: skip
    names = [part.name for parts in inside for part in parts]
    return [*PARTS, *(name for name in names if "._" not in name)]


def pytorch_names():
    """Full names of what PyTorch has, `nn.Linear` and `nn.Linear.forward` by the shortest path."""
    names = {f"nn.{name}" for name in dir(torch().nn) if name[0] != "_"}
    for path in pytorch_files():
        for name, value in own(find(torch(), path)):
            short = "nn" if getattr(torch().nn, name, None) is value else path
            names.add(f"{short}.{name}")
            if inspect.isclass(value):
                names |= {f"{short}.{name}.{m}" for m, f in vars(value).items() if _public(m, f)}
    return names - FOR_COMPILERS


def _public(name, method):
    return inspect.isfunction(method) and (name[0] != "_" or name == "__init__")


def within(name, names):
    """Whether a name or what it is part of is among the names."""
    parts = name.split(".")
    return any(".".join(parts[: i + 1]) in names for i in range(len(parts)))


def test_each_is_here_or_in_the_list_of_the_readme():
    missing = {name for name in pytorch_names() if find(gpunn, name) is None}
    assert {n for n in missing if not within(n, listed())} == set(), "not in the README's list"
    here = {n for n in listed() if find(gpunn, n) is not None}
    assert here == set(), "in the README's list, but here"
    strangers = {n for n in listed() if find(torch(), n) is None}
    assert strangers == set(), "in the README's list, but not PyTorch's"


def test_each_is_under_the_path_of_its_file_too():
    compared = 0
    for path in pytorch_files():
        for name, value in own(find(torch(), path)):
            ours = getattr(gpunn.nn, name, None)
            if path.startswith("nn.modules.") and ours is not None and inspect.isclass(value):
                assert find(gpunn, f"{path}.{name}") is ours, f"{path}.{name}"
                compared += 1
    assert compared > 100


def test_the_list_is_read():
    assert len(listed()) > 5 and all(listed().values())


# --- parameters ---------------------------------------------------------------------------


def parameters(function):
    """[(name, default, kind)]; None where there is no signature."""
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:  # a function of PyTorch's that is not written in Python
        return None
    return [(p.name, _default(p.default), p.kind) for p in found]


def _default(value):  # each package's own relu is the same default
    return value.__name__ if inspect.isfunction(value) else value


def documented(function):
    """[(name, default)] of the call in the first line of a docstring; None where there is none."""
    call = re.match(r"\s*\w+\((.*?)\)\s*->", function.__doc__ or "", re.DOTALL)
    if call is None:
        return None
    made = ast.parse(f"def f({call[1]}): pass").body[0].args
    given = [eval(ast.unparse(d), {}) for d in made.defaults]
    given = [inspect.Parameter.empty] * (len(made.args) - len(given)) + given
    return [(a.arg, default) for a, default in zip(made.args, given, strict=True)]


def differing():
    """Functions and methods of both whose parameters differ: name -> theirs and ours."""
    for name in sorted(pytorch_names()):
        theirs, ours = find(torch(), name), find(gpunn, name)
        if ours is None or not callable(theirs) or inspect.isclass(theirs):
            continue
        # max_pool2d and its like show (*args, **kwargs), _max_pool2d the parameters
        body = getattr(torch().nn.functional, "_" + name.rpartition(".")[2], theirs)
        wanted, got = parameters(body), parameters(ours)
        if wanted is None:
            wanted, got = documented(theirs), [p[:2] for p in got]
        if wanted is None:  # PyTorch tells nobody
            continue
        if [p for p in got if p[0] not in OURS] != [p for p in wanted if p[0] not in OURS]:
            yield name, wanted, got


def test_parameters_are_the_same():
    assert list(differing()) == []
    assert len(pytorch_names()) > 600
