"""Modules called as functions of their parameters.

Source: https://docs.pytorch.org/docs/stable/func.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.nn.module import Module
from gpunn.nn.norm import _BatchNorm
from gpunn.nn.utils.stateless import call_with
from gpunn.ops.join import stack
from gpunn.tensor import Tensor

__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]

Tensors = dict[str, Tensor]


def functional_call(
    module: Module, parameter_and_buffer_dicts: Tensors | Sequence[Tensors], args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """Calls a module with other parameters and buffers in the place of its own.

    They are given by name, in one dictionary or several; the module keeps its own ones, and
    gradients flow to those given. Tensors that the module has under several names are replaced
    under all of them, with `tie_weights`; `strict` wants a value for each name and no others.
    `args` that is no tuple is the one argument. What the module assigns to a replaced buffer is
    found in the dictionary afterwards.

    Raises ValueError for a name in two dictionaries and for two values of a tied tensor,
    RuntimeError for what `strict` does not allow, AttributeError for a name of no module.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.func.functional_call.html

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> gpunn.func.functional_call(layer, {"weight": gpunn.ones(1, 2)}, gpunn.tensor([2.0, 3.0]))
    tensor([5.])
    """
    given: Any = parameter_and_buffer_dicts
    if not isinstance(given, dict):
        given = _merged(given)
    return call_with(module, given, args, kwargs, tie_weights, strict)


def _merged(dicts: Any) -> Tensors:
    if not isinstance(dicts, Sequence):
        raise ValueError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(dicts)}"
        )
    if not all(isinstance(d, dict) for d in dicts):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    names = [name for d in dicts for name in d]
    repeated = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if repeated:
        raise ValueError(
            f"{repeated} appeared in multiple dictionaries; behavior of functional call is "
            "ambiguous"
        )
    return {name: tensor for d in dicts for name, tensor in d.items()}


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Makes every batch norm in a module use the statistics of the batch alone; returns it.

    The running statistics are dropped, in place.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.func.replace_all_batch_norm_modules_.html

    >>> model = gpunn.func.replace_all_batch_norm_modules_(nn.Sequential(nn.BatchNorm1d(3)))
    >>> model[0].running_mean is None
    True
    """
    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root


def stack_module_state(models: Any) -> tuple[Tensors, Tensors]:
    """The parameters and the buffers of several models of one class, stacked, by name.

    Each gets a first dimension of the number of models; they are new leaves that an optimizer
    takes. Raises RuntimeError for no models, for different classes and for different modes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.func.stack_module_state.html

    >>> params, buffers = gpunn.func.stack_module_state([nn.Linear(3, 2) for _ in range(5)])
    >>> params["weight"].shape
    torch.Size([5, 2, 3])
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({model.training for model in models}) > 1:
        raise RuntimeError(
            "stack_module_state: Expected all models to have the same training/eval mode."
        )
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    params = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    return _stacked(params), _stacked(buffers)


def _stacked(states: list[Tensors]) -> Tensors:
    return {name: _stacked_leaf([state[name] for state in states], name) for name in states[0]}


def _stacked_leaf(tensors: list[Tensor], name: str) -> Tensor:
    wants = {t.requires_grad for t in tensors}
    if len(wants) > 1:
        raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
    return stack(tensors).detach().requires_grad_(wants.pop())
