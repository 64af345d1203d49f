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
TORCH_WORDS = {  # what PyTorch's own text calls a module's, but which serves only its compilers
    "F.boolean_dispatch", "F.assert_int_or_pair", "F.handle_torch_function",
    "F.has_torch_function", "F.has_torch_function_unary", "F.has_torch_function_variadic",
}  # fmt: skip


def listed():
    """The names of the README's list of what is lacking, each with its reason."""
    section = README.partition("### What PyTorch's `nn` has and gpunn has not")[2]
    lines = re.findall(r"^- (`.+`): (.+)$", section.partition("\n#")[0], re.M)
    return {name: reason for names, reason in lines for name in re.findall(r"`([^`]+)`", names)}


def pytorch_names():
    """Full names, as `nn.Linear`, `nn.modules.lazy.LazyModuleMixin` and `F.linear`."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    names = {f"nn.{n}" for n in dir(torch.nn) if not n.startswith("_")}
    for path, classes in module_classes(torch):
        names |= {f"nn.modules.{path}.{n}" for n in classes if not hasattr(torch.nn, n)}
    functional = torch.nn.functional
    return names | {
        f"F.{n}"
        for n, value in vars(functional).items()
        if n[0] != "_" and callable(value) and not inspect.isclass(value)
        and getattr(value, "__module__", "").startswith("torch")
    } - TORCH_WORDS  # fmt: skip


def module_classes(torch):
    """(file, names of its public classes) for each public file of torch.nn.modules."""
    for part in pkgutil.iter_modules(torch.nn.modules.__path__):
        module = importlib.import_module(f"torch.nn.modules.{part.name}")
        if not part.name.startswith("_"):
            yield part.name, [
                n for n, value in vars(module).items()
                if inspect.isclass(value) and value.__module__ == module.__name__ and n[0] != "_"
            ]  # fmt: skip


def find(package, name):
    """What a package has under a full name; None where it has nothing."""
    value = package
    for part in name.replace("F.", "nn.functional.", name.startswith("F.")).split("."):
        value = getattr(value, part, None)
    return value


def test_each_is_here_or_in_the_list_of_the_readme():
    missing = {name for name in pytorch_names() if find(gpunn, name) is None}
    assert missing - set(listed()) == set(), "neither here nor in the README's list"
    assert set(listed()) - missing == set(), "in the README's list, but here, or not PyTorch's"


def test_classes_are_under_the_path_of_their_file_too():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    lacking = set(listed())
    for path, classes in module_classes(torch):
        for name in classes:
            if not lacking & {f"nn.{name}", f"nn.modules.{path}.{name}"}:
                found = find(gpunn, f"nn.modules.{path}.{name}")
                assert found is getattr(gpunn.nn, name, found) is not None, f"{path}.{name}"


def test_the_list_is_read():
    assert len(listed()) > 5 and all(listed().values())


# --- parameters ---------------------------------------------------------------------------


def parameters(function):
    """[(name, default, kind)], `self` left out; None where there is no signature."""
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:  # a function of PyTorch's that is not written in Python
        return None
    return [(p.name, p.default, p.kind) for p in found if p.name != "self"]


def documented(function):
    """[(name, default)] of the call in the first line of a docstring; None where there is none."""
    call = re.match(r"\s*\w+\((.*?)\)\s*->", function.__doc__ or "", re.DOTALL)
    if call is None:
        return None
    made = ast.parse(f"def f({call[1]}): pass").body[0].args
    given = [eval(ast.unparse(d), {}) for d in made.defaults]
    given = [inspect.Parameter.empty] * (len(made.args) - len(given)) + given
    return [(a.arg, default) for a, default in zip(made.args, given, strict=True)]


def common(kind):
    """Full names of classes ("nn") or functions ("F") that both packages have."""
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    import torch

    for name in sorted(pytorch_names()):
        theirs, ours = find(torch, name), find(gpunn, name)
        if ours is not None and (kind == "F") == name.startswith("F.") and callable(theirs):
            yield name, theirs, ours


def test_modules_take_the_same_parameters():
    for name, theirs, ours in common("nn"):
        if not inspect.isclass(theirs):
            assert parameters(ours) == parameters(theirs), name
        elif "__init__" in vars(theirs):
            assert parameters(ours.__init__) == parameters(theirs.__init__), name
        if "forward" in vars(theirs):
            assert parameters(ours.forward) == parameters(theirs.forward), f"{name}.forward"


def test_functions_take_the_same_parameters():
    import torch

    compared = 0
    for name, theirs, ours in common("F"):
        body = getattr(torch.nn.functional, "_" + name[2:], theirs)  # of max_pool2d and its like
        wanted, got = parameters(body), parameters(ours)
        if wanted is None:
            wanted, got = documented(theirs), [p[:2] for p in got]
        if wanted is None:  # PyTorch tells nobody
            continue
        compared += 1
        extra = [p[0] for p in got if p not in wanted]
        assert [p for p in got if p[0] != "out"] == [p for p in wanted if p[0] != "out"], name
        assert set(extra) <= {"out"}, (name, extra)
    assert compared > 100
