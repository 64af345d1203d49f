"""PyTorch's import paths of layers."""

import importlib
import inspect
import pkgutil

import pytest

import gpunn
from gpunn import nn

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
FILES = [
    file.name
    for file in pkgutil.iter_modules(torch.nn.modules.__path__)
    if not file.name.startswith("_")  # classes of its own
]


@pytest.mark.parametrize("file", FILES)
def test_layers_are_found_where_pytorch_has_them(file):
    theirs = importlib.import_module(f"torch.nn.modules.{file}")
    names = [
        name
        for name, kind in vars(theirs).items()
        if inspect.isclass(kind) and kind.__module__ == theirs.__name__ and hasattr(nn, name)
    ]
    ours = importlib.import_module(f"gpunn.nn.modules.{file}") if names else None
    missing = [name for name in names if getattr(ours, name, None) is not getattr(nn, name)]
    assert not missing, f"gpunn/nn/modules/__init__.py sends {file} elsewhere"


def test_the_namespace_has_all_of_nn():
    assert gpunn.nn.modules.Sequential is nn.Sequential
    assert gpunn.nn.modules.container.Sequential is nn.Sequential
    with pytest.raises(AttributeError):
        _ = gpunn.nn.modules.NoSuchLayer
