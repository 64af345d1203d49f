"""A module's state: `state_dict` and `load_state_dict`."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpunn import autograd
from gpunn.nn.parameter import Parameter, is_lazy
from gpunn.tensor import Tensor

_EXTRA_STATE = "_extra_state"


class _IncompatibleKeys(NamedTuple):
    """What `load_state_dict` returns: the keys that it missed, and those it has no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"_IncompatibleKeys(missing_keys={self.missing_keys!r}, "
            f"unexpected_keys={self.unexpected_keys!r})"
        )

    def __str__(self) -> str:
        return repr(self)


class State:
    """What a Module can do with its state."""

    _version = 1
    """Saved with the state; a subclass that changes its keys raises it and translates the old
    ones in `_load_from_state_dict`."""

    def get_extra_state(self) -> Any:
        """Override with `set_extra_state` to save more than tensors in the `state_dict`."""
        raise RuntimeError(
            "Reached a code path in Module.get_extra_state() that should never be called."
        )

    def set_extra_state(self, state: Any) -> None:
        """Override to take back what `get_extra_state` gave."""
        raise RuntimeError(
            "Reached a code path in Module.set_extra_state() that should never be called."
        )

    def state_dict(
        self: Any, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The parameters and persistent buffers of this module and those in it, by name.

        The tensors share memory with the module's; they are detached unless `keep_vars`. Names
        start with `prefix`. `destination`, an OrderedDict by default, is filled and returned; its
        attribute `_metadata` has the version of each module.
        Source:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.state_dict

        >>> list(nn.Sequential(nn.ParameterList([gpunn.ones(2)])).state_dict())
        ['0.0']
        """
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead.",
                FutureWarning,
                stacklevel=2,
            )
            given = (*args, None, None, None)
            destination = given[0] if destination is None else destination
            prefix = given[1] if len(args) > 1 and not prefix else prefix
            keep_vars = given[2] if len(args) > 2 and not keep_vars else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            replacement = hook(self, destination, prefix, local_metadata)
            if replacement is None:
                continue
            if getattr(hook, "_from_public_api", False):
                raise RuntimeError("state_dict post-hook must return None")
            destination = replacement
        return destination

    def _save_to_state_dict(self: Any, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Puts this module's own tensors, not its children's, into `destination`."""
        for name, tensor in self._state():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if type(self).get_extra_state is not State.get_extra_state:
            destination[prefix + _EXTRA_STATE] = self.get_extra_state()

    def _state(self: Any) -> list[tuple[str, Tensor]]:
        """The module's own parameters and persistent buffers that are not None."""
        transient = self._non_persistent_buffers_set
        buffers = [(name, t) for name, t in self._buffers.items() if name not in transient]
        return [(name, t) for name, t in (*self._parameters.items(), *buffers) if t is not None]

    def load_state_dict(
        self: Any, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copies the tensors of `state_dict` into this module's and those of the modules in it.

        Keys must match exactly unless `strict` is False; missing and unexpected ones are
        returned. With `assign` the module takes the tensors themselves, keeping only whether
        each parameter requires a gradient; make the optimizer afterwards. Raises RuntimeError
        with all that does not fit, TypeError for what is no mapping.
        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html

        >>> model = nn.ParameterList([gpunn.ones(2)])
        >>> model.load_state_dict({"0": gpunn.zeros(2)})
        <All keys matched successfully>
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        state_dict = OrderedDict(state_dict)  # hooks may change it
        if metadata is not None:
            state_dict._metadata = metadata  # type: ignore[attr-defined]
        keys = _IncompatibleKeys([], [])
        errors: list[str] = []
        _load(self, state_dict, "", metadata, assign, keys, errors)
        if strict:
            for kind, names in (("Missing", keys[0]), ("Unexpected", keys[1]))[::-1]:
                if names:
                    listed = ", ".join(f'"{name}"' for name in names)
                    errors.insert(0, f"{kind} key(s) in state_dict: {listed}. ")
        if errors:
            raise RuntimeError(
                "Error(s) in loading state_dict for {}:\n\t{}".format(
                    type(self).__name__, "\n\t".join(errors)
                )
            )
        return keys

    def _load_from_state_dict(
        self: Any, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Loads this module's own entries, not its children's; the place to translate old keys.

        `local_metadata["version"]` is the `_version` that the module had when it was saved.
        Problems are appended to the three lists.
        """
        for hook in list(self._load_state_dict_pre_hooks.values()):
            hook(
                state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                error_msgs,
            )  # fmt: skip
        assign = local_metadata.get("assign_to_params_buffers", False)
        state = dict(self._state())
        for name, own in state.items():
            key = prefix + name
            if key in state_dict:
                error = _load_tensor(self, name, own, key, state_dict[key], assign)
                if error is not None:
                    error_msgs.append(error)
            elif strict:
                missing_keys.append(key)
        extra_key = prefix + _EXTRA_STATE
        if type(self).set_extra_state is not State.set_extra_state:
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            elif strict:
                missing_keys.append(extra_key)
        elif strict and extra_key in state_dict:
            unexpected_keys.append(extra_key)
        if strict:
            modules = self._modules
            for key in state_dict:
                if key.startswith(prefix) and key != extra_key:
                    name, dot, _ = key[len(prefix) :].partition(".")
                    if name not in (modules if dot else state):
                        unexpected_keys.append(key)


def _load(
    module: Any, state_dict: Any, prefix: str, metadata: Any, assign: bool,
    keys: _IncompatibleKeys, errors: list[str],
) -> None:  # fmt: skip
    """Loads a module and its children from the entries that start with `prefix`."""
    local_metadata = dict((metadata or {}).get(prefix[:-1], {}))
    if assign:
        local_metadata["assign_to_params_buffers"] = assign
    module._load_from_state_dict(state_dict, prefix, local_metadata, True, *keys, errors)
    for name, child in module._modules.items():
        if child is not None:
            start = f"{prefix}{name}."
            entries = {key: value for key, value in state_dict.items() if key.startswith(start)}
            _load(child, entries, start, metadata, assign, keys, errors)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, keys) is not None:
            raise AssertionError(
                "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to "
                "return new values, if incompatible_keys need to be modified, it should be done "
                "inplace."
            )


def _load_tensor(
    module: Any, name: str, own: Tensor, key: str, new: Any, assign: bool
) -> str | None:
    """Puts `new` into the module's tensor `name`, or in its place; says what is wrong with it."""
    if not isinstance(new, Tensor):
        return (
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
            f"object from checkpoint but received {type(new)}"
        )
    if not is_lazy(own):
        if own.ndim == 0 and new.shape == (1,):
            new = new.reshape(())  # type: ignore[attr-defined]  # files of PyTorch 0.3, which had no 0-dim tensors
        if new.shape != own.shape:
            return (
                f"size mismatch for {key}: copying a param with shape {new.shape} from "
                f"checkpoint, the shape in current model is {own.shape}."
            )
    try:
        with autograd.no_grad():
            if assign:
                _assign(module, name, own, new)
            else:
                own.copy_(new)  # type: ignore[attr-defined]
    except Exception as error:
        return (
            f'While copying the parameter named "{key}", whose dimensions in the model are '
            f"{own.size()} and whose dimensions in the checkpoint are {new.size()}, an exception "
            f"occurred : {error.args}."
        )
    return None


def _assign(module: Any, name: str, own: Tensor, new: Tensor) -> None:
    if isinstance(own, Parameter):
        if isinstance(new, Parameter):
            new.requires_grad_(own.requires_grad)
        else:
            new = Parameter(new, own.requires_grad)
    setattr(module, name, new)
