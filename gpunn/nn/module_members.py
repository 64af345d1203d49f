"""A module's members: its parameters, buffers and child modules.

They are ordinary instance attributes, so that reading `self.weight` costs what any attribute
read costs. What makes them members is their entry in `_roles`, which maps names to roles in the
order of registration; `_parameters`, `_buffers` and `_modules` are views of the members of one
role.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from gpunn.nn.module_hooks import registration_hooks
from gpunn.nn.parameter import Buffer, Parameter
from gpunn.tensor import Tensor

if TYPE_CHECKING:
    from gpunn.nn.module import Module

PARAMETER, BUFFER, MODULE = "parameter", "buffer", "module"
_PARAMETER = "torch.nn.Parameter or None"
_BUFFER = "torch.nn.Buffer, torch.Tensor or None"
_MODULE = "torch.nn.Module or None"


class _Members(MutableMapping[str, Any]):
    """The members of a module that have one role, by name: a live view."""

    __slots__ = ("_values", "_roles", "_role")

    def __init__(self, module: Any, role: str) -> None:
        self._values = module.__dict__
        self._roles = module._roles
        self._role = role

    def __getitem__(self, name: str) -> Any:
        if self._roles.get(name) != self._role:
            raise KeyError(name)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if self._roles.get(name) != self._role:
            self._roles.pop(name, None)
            self._roles[name] = self._role
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        if self._roles.get(name) != self._role:
            raise KeyError(name)
        del self._roles[name], self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, role in self._roles.items() if role == self._role])

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __len__(self) -> int:
        return list(self._roles.values()).count(self._role)

    def __repr__(self) -> str:
        return repr(dict(self))

    def copy(self) -> dict[str, Any]:
        return dict(self)


def _view(role: str) -> Any:
    def read(module: Any) -> _Members:
        if "_roles" not in module.__dict__:
            raise _missing(module, f"_{role}s")
        return _Members(module, role)

    def replace(module: Any, members: MutableMapping[str, Any]) -> None:
        new = dict(members)
        view = _Members(module, role)
        view.clear()
        view.update(new)

    return property(read, replace, doc=f"The {role}s registered here, by name: a live view.")


def _typename(value: Any) -> str:
    """The name of a value's type as errors show it."""
    if isinstance(value, Tensor):
        return value.type()  # type: ignore[attr-defined, no-any-return]
    kind = value if isinstance(value, type) else type(value)
    home = "" if kind.__module__ in ("builtins", "__builtin__") else f"{kind.__module__}."
    return home + kind.__name__


def _cannot_assign(value: Any, place: str, name: str, expected: str) -> TypeError:
    return TypeError(f"cannot assign '{_typename(value)}' {place} '{name}' ({expected})")


def _after_hooks(role: str, module: Any, name: str, value: Any) -> Any:
    """The value to register: what the hooks on registration make of it."""
    for hook in registration_hooks[role].values():
        replacement = hook(module, name, value)
        if replacement is not None:
            value = replacement
    return value


def _attribute(module: Any, name: str) -> Any:
    if not hasattr(module, name):
        raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
    return getattr(module, name)


def _missing(module: Any, name: str) -> AttributeError:
    return AttributeError(f"'{type(module).__name__}' object has no attribute '{name}'")


def _getattr(self: Any, name: str) -> Any:
    """Module's `__getattr__`, for subclasses whose own calls `super().__getattr__`."""
    raise _missing(self, name)


class Members:
    """What a Module can do with its members."""

    _roles: dict[str, str]
    _non_persistent_buffers_set: set[str]
    _parameters: MutableMapping[str, Any] = _view(PARAMETER)
    _buffers: MutableMapping[str, Any] = _view(BUFFER)
    _modules: MutableMapping[str, Any] = _view(MODULE)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A __getattr__ slows down every method call, so there is one only when a subclass has
        # its own, which will call super()'s.
        if hasattr(cls, "__getattr__") and not hasattr(Members, "__getattr__"):
            Members.__getattr__ = _getattr  # type: ignore[method-assign]

    if TYPE_CHECKING:  # buffers and modules that are registered by name

        def __getattr__(self, name: str) -> Any: ...


    def __setattr__(self, name: str, value: Any) -> None:
        roles = self.__dict__.get("_roles")
        if roles is not None and (name in roles or isinstance(value, (Tensor, Members))):
            self._set_member(name, value, roles.get(name))
        elif roles is None and isinstance(value, (Parameter, Members, Buffer)):
            kinds = {Parameter: "parameters", Members: "module", Buffer: "buffer"}
            kind = next(kinds[base] for base in kinds if isinstance(value, base))
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        else:
            super().__setattr__(name, value)

    def _set_member(self, name: str, value: Any, role: str | None) -> None:
        """Sorts an assigned value by its type and by the role that the name has."""
        if isinstance(value, Parameter):
            self._forget(name, unless=PARAMETER)
            self.register_parameter(name, value)
        elif role == PARAMETER:
            if value is not None:
                raise _cannot_assign(value, "as parameter", name, f"{_PARAMETER} expected")
            self.register_parameter(name, None)
        elif isinstance(value, Members):
            self._forget(name, unless=MODULE)
            self._modules[name] = _after_hooks(MODULE, self, name, value)
        elif role == MODULE:
            if value is not None:
                raise _cannot_assign(value, "as child module", name, f"{_MODULE} expected")
            self._modules[name] = _after_hooks(MODULE, self, name, None)
        elif role == BUFFER or isinstance(value, Buffer):
            if not (value is None or isinstance(value, Tensor)):
                raise _cannot_assign(value, "as buffer", name, f"{_BUFFER} expected")
            kept = name not in self._non_persistent_buffers_set
            if value.persistent if isinstance(value, Buffer) else kept:
                self.register_buffer(name, value)  # an override may know no `persistent`
            else:
                self.register_buffer(name, value, False)
        else:
            super().__setattr__(name, value)

    def _forget(self, name: str, unless: str) -> None:
        """Takes a name out of every role but `unless`."""
        if self._roles.get(name) != unless:
            self._roles.pop(name, None)
            self.__dict__.pop(name, None)
            self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        if self._roles.pop(name, None) == BUFFER:
            self._non_persistent_buffers_set.discard(name)
        super().__delattr__(name)

    def _check_name(self, name: Any, role: str) -> None:
        """Raises unless `name` may become a member of this role."""
        values = self.__dict__
        if "_roles" not in values:
            raise AttributeError(f"cannot assign {role} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{role} name should be a string. Got {_typename(name)}")
        if values["_roles"].get(name) != role and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            got = f", got: {name}" if role == MODULE else ""
            raise KeyError(f'{role} name can\'t contain "."{got}')
        if name == "":
            raise KeyError(f'{role} name can\'t be empty string ""')

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a buffer: a tensor that is part of the state and no parameter, such as a mean.

        It moves with the module and, if `persistent`, is in its `state_dict`. Raises KeyError for
        a name that is taken, empty or has a dot, TypeError for what is no tensor.

        >>> module = nn.Module()
        >>> module.register_buffer("mean", gpunn.zeros(3))
        >>> module.mean
        tensor([0., 0., 0.])
        """
        self._check_name(name, BUFFER)
        if not (tensor is None or isinstance(tensor, Tensor)):
            raise _cannot_assign(tensor, "object to buffer", name, "torch Tensor or None required")
        self._buffers[name] = _after_hooks(BUFFER, self, name, tensor)
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or None for one that the module does without.

        Raises KeyError for a name that is taken, empty or has a dot, TypeError for what is no
        Parameter, ValueError for one that was computed from others.

        >>> module = nn.Module()
        >>> module.register_parameter("bias", None)
        >>> list(module.parameters())
        []
        """
        self._check_name(name, PARAMETER)
        if not (param is None or isinstance(param, Parameter)):
            raise _cannot_assign(param, "object to parameter", name, f"{_PARAMETER} required")
        if param is not None:
            if param.node is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must "
                    f"be created explicitly. To express '{name}' as a function of another Tensor, "
                    f"compute the value in the forward() method."
                )
            param = _after_hooks(PARAMETER, self, name, param)
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child module, as `self.name = module` does, for a name computed at run time.

        Raises KeyError for a name that is taken, empty or has a dot, TypeError for what is no
        Module.

        >>> model = nn.Module()
        >>> model.add_module("layer1", nn.Identity())
        >>> model.layer1
        Identity()
        """
        if not (module is None or isinstance(module, Members)):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._check_name(name, MODULE)
        self._modules[name] = _after_hooks(MODULE, self, name, module)

    def register_module(self, name: str, module: Module | None) -> None:
        """`add_module` by another name."""
        self.add_module(name, module)

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target`, this one for "". Raises AttributeError.

        >>> nn.Sequential(nn.Sequential(nn.Flatten())).get_submodule("0.0")
        Flatten(start_dim=1, end_dim=-1)
        """
        module: Any = self
        for name in target.split(".") if target else ():
            module = _attribute(module, name)
            if not isinstance(module, Members):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts `module` at the dotted path `target`, where one must be already if `strict`.

        Raises ValueError for an empty path or what is no Module, AttributeError for a path that
        leads elsewhere than to modules.

        >>> model = nn.Sequential(nn.Flatten())
        >>> model.set_submodule("0", nn.Identity())
        >>> model
        Sequential(
          (0): Identity()
        )
        """
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Members):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if (strict or hasattr(parent, name)) and not isinstance(_attribute(parent, name), Members):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path `target`. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        param = _attribute(self.get_submodule(path), name)
        if not isinstance(param, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return param

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path `target`. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        buffer = _attribute(module, name)
        if name not in module._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return buffer  # type: ignore[no-any-return]
