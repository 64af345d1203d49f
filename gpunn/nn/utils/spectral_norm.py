"""Spectral normalisation by a hook: a weight divided by its largest singular value.

`gpunn.nn.utils.parametrizations.spectral_norm` is its newer form.
Source: https://arxiv.org/abs/1802.05957
"""

from __future__ import annotations

from typing import Any, TypeVar

from gpunn import autograd, linalg
from gpunn.nn.distance import normalize
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter, is_lazy

__all__ = [
    "SpectralNorm", "SpectralNormLoadStateDictPreHook", "SpectralNormStateDictHook",
    "remove_spectral_norm", "spectral_norm",
]  # fmt: skip

M = TypeVar("M", bound=Module)


class SpectralNorm:
    """The hook that computes a module's weight before each forward; `spectral_norm` makes it.

    `name_orig` is the parameter, `name_u` and `name_v` are buffers, the singular vectors.

    >>> from gpunn.nn.utils.spectral_norm import SpectralNorm
    >>> SpectralNorm("weight", dim=1).reshape_weight_to_matrix(gpunn.ones(2, 3, 4)).shape
    torch.Size([3, 8])
    """

    _version = 1  # 1: `v` is a buffer, the weight is not

    def __init__(
        self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.name = name
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def reshape_weight_to_matrix(self, weight: Any) -> Any:
        """The weight with `dim` as its rows and everything else as its columns."""
        weight = weight.movedim(self.dim, 0)
        return weight.reshape(weight.shape[0], -1)

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Any:
        """The original weight divided by its largest singular value, as far as it is known."""
        weight, u, v = (getattr(module, self.name + end) for end in ("_orig", "_u", "_v"))
        matrix = self.reshape_weight_to_matrix(weight)
        if do_power_iteration:
            with autograd.no_grad():
                for _ in range(self.n_power_iterations):  # in place: replicas share the buffers
                    normalize(matrix.t().mv(u), dim=0, eps=self.eps, out=v)
                    normalize(matrix.mv(v), dim=0, eps=self.eps, out=u)
                u, v = u.clone(), v.clone()  # the next call changes them before backward
        return weight / u.dot(matrix.mv(v))

    def remove(self, module: Module) -> None:
        """Makes the weight an ordinary parameter with its present value."""
        with autograd.no_grad():
            weight = self.compute_weight(module, do_power_iteration=False)
        for end in ("", "_u", "_v", "_orig"):
            delattr(module, self.name + end)
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        weight = self.compute_weight(module, do_power_iteration=module.training)
        setattr(module, self.name, weight)

    def _solve_v_and_rescale(self, matrix: Any, u: Any, sigma: Any) -> Any:
        """The `v` with u = normalize(matrix @ v) and u @ matrix @ v = `sigma`."""
        t = matrix.t()
        v = linalg.multi_dot([(t @ matrix).pinverse(), t, u.unsqueeze(1)]).squeeze(1)
        return v * (sigma / u.dot(matrix.mv(v)))

    @staticmethod
    def apply(
        module: Any, name: str, n_power_iterations: int, dim: int, eps: float
    ) -> SpectralNorm:
        """Replaces the parameter and registers the hooks.

        Raises RuntimeError for a parameter that has the hook, ValueError for one that is None or
        has no shape yet.
        """
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm) and hook.name == name:
                raise RuntimeError(
                    f"Cannot register two spectral_norm hooks on the same parameter {name}"
                )
        made = SpectralNorm(name, n_power_iterations, dim, eps)
        weight = module._parameters[name]
        if weight is None:
            raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
        if is_lazy(weight):
            raise ValueError(
                "The module passed to `SpectralNorm` can't have uninitialized parameters. Make "
                "sure to run the dummy forward before applying spectral normalization"
            )
        with autograd.no_grad():
            sizes = made.reshape_weight_to_matrix(weight).shape
            drawn = [weight.new_empty(size).normal_(0, 1) for size in sizes]
            u, v = (normalize(vector, dim=0, eps=eps) for vector in drawn)
        delattr(module, name)
        module.register_parameter(name + "_orig", weight)
        setattr(module, name, weight.data)  # no parameter, for whoever looks before a forward
        module.register_buffer(name + "_u", u)
        module.register_buffer(name + "_v", v)
        module.register_forward_pre_hook(made)
        module._register_state_dict_hook(SpectralNormStateDictHook(made))
        module._register_load_state_dict_pre_hook(SpectralNormLoadStateDictPreHook(made))
        return made


class SpectralNormLoadStateDictPreHook:
    """Makes what version 1 wants of a state saved before it, which has the weight and no `v`.

    >>> from gpunn.nn.utils.spectral_norm import SpectralNormLoadStateDictPreHook
    >>> layer = nn.utils.spectral_norm(nn.Linear(3, 2))
    >>> hooks = list(layer._load_state_dict_pre_hooks.values())
    >>> isinstance(hooks[0].hook, SpectralNormLoadStateDictPreHook)
    True
    """

    def __init__(self, fn: SpectralNorm) -> None:
        self.fn = fn

    def __call__(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any,
        unexpected_keys: Any, error_msgs: Any,
    ) -> None:  # fmt: skip
        key = prefix + self.fn.name
        version = local_metadata.get("spectral_norm", {}).get(self.fn.name + ".version")
        if version is not None and version >= 1:
            return
        new = all(key + end in state_dict for end in ("_orig", "_u", "_v"))
        if version is None and new and key not in state_dict:
            return  # a state of version 1 whose metadata was lost
        missing = [key + end for end in ("_orig", "", "_u") if key + end not in state_dict]
        if missing:
            if strict:
                missing_keys.extend(missing)
            return
        with autograd.no_grad():
            original, u = state_dict[key + "_orig"], state_dict[key + "_u"]
            sigma = (original / state_dict.pop(key)).mean()
            matrix = self.fn.reshape_weight_to_matrix(original)
            state_dict[key + "_v"] = self.fn._solve_v_and_rescale(matrix, u, sigma)


class SpectralNormStateDictHook:
    """Notes the version in the metadata of a state.

    >>> layer = nn.utils.spectral_norm(nn.Linear(3, 2))
    >>> layer.state_dict()._metadata[""]["spectral_norm"]
    {'weight.version': 1}
    """

    def __init__(self, fn: SpectralNorm) -> None:
        self.fn = fn

    def __call__(self, module: Module, state_dict: Any, prefix: str, local_metadata: Any) -> None:
        versions = local_metadata.setdefault("spectral_norm", {})
        key = self.fn.name + ".version"
        if key in versions:
            raise RuntimeError(f"Unexpected key in metadata['spectral_norm']: {key}")
        versions[key] = self.fn._version


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> M:  # fmt: skip
    """Divides a weight by its largest singular value, before each forward.

    The weight is taken as the matrix of `dim` (0 by default, 1 for transposed convolutions)
    against the rest; each forward in training mode follows the value by `n_power_iterations` of
    the power method. The parameter is `weight_orig`. Returns the module.
    `parametrizations.spectral_norm` is the newer form. Raises RuntimeError for a parameter that
    has the hook, ValueError for `n_power_iterations` below 1 and a parameter without a shape.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.spectral_norm.html

    >>> layer = nn.utils.spectral_norm(nn.Linear(20, 40))
    >>> list(layer.state_dict())
    ['bias', 'weight_orig', 'weight_u', 'weight_v']
    """
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    SpectralNorm.apply(module, name, n_power_iterations, dim, eps)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undoes `spectral_norm`: the weight is a parameter again. Raises ValueError if there is none.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.remove_spectral_norm.html

    >>> layer = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(20, 40)))
    >>> list(layer.state_dict())
    ['bias', 'weight']
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            break
    else:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key, found in list(hooks.items()):
            found = getattr(found, "hook", found)
            if isinstance(found, _STATE_HOOKS) and found.fn.name == name:
                del hooks[key]
    return module


_STATE_HOOKS = SpectralNormStateDictHook, SpectralNormLoadStateDictPreHook
