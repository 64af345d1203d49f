"""Members of a Module: what assignment registers, views, paths, and the errors."""

import pytest

import gpunn
from gpunn import nn
from gpunn.nn import module


def parts(T):
    nn = T.nn
    return nn.Module(), nn.Parameter(T.ones(2)), nn.Identity(), nn.Buffer(T.zeros(3))



def test_assignment_sorts_by_type(same_as_torch):
    def scenario(T):
        m, param, child, buffer = parts(T)
        m.weight, m.child, m.mean = param, child, buffer
        m.plain, m.number, m.nothing = T.ones(1), 3, None
        return [
            list(m._parameters), list(m._buffers), list(m._modules),
            m.weight is param, m.child is child, m.mean is buffer,
            m.plain.tolist(), m.number, m.nothing,
        ]  # fmt: skip

    same_as_torch(scenario)


def test_a_name_changes_its_role(same_as_torch):
    def scenario(T):
        m, param, child, buffer = parts(T)
        seen = []
        m.other = T.nn.Parameter(T.ones(1))
        for value in (3, param, child, buffer, param):
            if value is buffer or value is child:
                del m.x
            m.x = value
            seen.append((list(m._parameters), list(m._buffers), list(m._modules)))
        m.x = None
        seen.append((list(m._parameters), m.x, m._parameters["x"]))
        del m.x
        m.x = buffer
        m.x = child
        seen.append((list(m._buffers), list(m._modules)))
        m.x = param
        del m.x
        m.x = child
        m.x = None
        seen.append((list(m._modules), m.x))
        return seen

    same_as_torch(scenario)


def test_reassignment_keeps_the_place(same_as_torch):
    def scenario(T):
        m = T.nn.Module()
        m.a, m.b = T.nn.Parameter(T.ones(1)), T.nn.Parameter(T.ones(2))
        m.c, m.d = T.nn.Identity(), T.nn.Identity()
        m.a = T.nn.Parameter(T.ones(3))
        m.c = T.nn.Flatten()
        return [(n, tuple(p.shape)) for n, p in m.named_parameters()], repr(m)

    same_as_torch(scenario)


def test_buffers_stay_buffers_and_keep_their_persistence(same_as_torch, error):
    def scenario(T):
        m = T.nn.Module()
        m.register_buffer("kept", T.zeros(1))
        m.register_buffer("dropped", T.zeros(1), persistent=False)
        m.kept, m.dropped = T.ones(2), T.ones(2)
        first = list(m._buffers), list(m.state_dict())
        m.dropped = T.nn.Buffer(T.ones(1))
        second = list(m.state_dict())
        m.kept = T.nn.Buffer(T.ones(1), persistent=False)
        third = list(m.state_dict()), sorted(m._non_persistent_buffers_set)
        m.kept = None
        fourth = list(m.named_buffers()) != [], list(m._buffers)
        del m.kept
        return first, second, third, fourth, list(m._buffers), sorted(m._non_persistent_buffers_set)

    same_as_torch(scenario)


def test_errors_of_assignment(same_as_torch, error):
    def scenario(T):
        m, param, child, buffer = parts(T)
        m.p, m.c, m.b = param, child, buffer
        found = [error(setattr, m, name, 3) for name in "pcb"]
        found += [error(setattr, m, "p", T.ones(2)), error(setattr, m, "c", T.ones(2))]

        class NoInit(T.nn.Module):
            def __init__(self, value):
                self.x = value

        found += [error(NoInit, value) for value in (param, child, buffer)]
        found += [NoInit(3).x]
        return found

    same_as_torch(scenario)


def test_errors_of_registration(same_as_torch, error):
    def scenario(T):
        m, param, child, buffer = parts(T)
        m.taken = 1
        found = []
        for register, value in (
            (m.register_parameter, param), (m.register_buffer, buffer), (m.add_module, child),
            (m.register_module, child),
        ):  # fmt: skip
            for name in ("taken", "training", "a.b", "", 3, "parameters"):
                found.append(error(register, name, value))
        found.append(error(m.register_parameter, "x", T.ones(1)))
        found.append(error(m.register_parameter, "x", T.ones(1, requires_grad=True) * 2))
        found.append(error(m.register_parameter, "x", [1]))
        found.append(error(m.register_buffer, "x", [1]))
        found.append(error(m.add_module, "x", 3))
        return found

    same_as_torch(scenario)


def test_a_parameter_must_be_a_leaf(same_as_torch, error):
    def scenario(T):
        made = T.nn.Parameter(T.ones(2))
        made.mul_ = None
        computed = T.nn.Parameter(T.ones(2))
        with T.no_grad():
            computed.add_(1)
        m = T.nn.Module()
        m.fine = computed
        return list(m._parameters)

    same_as_torch(scenario)


def test_errors_before_init(same_as_torch, error):
    def scenario(T):
        class NoInit(T.nn.Module):
            def __init__(self):
                pass

        m = NoInit()
        return [
            error(m.register_parameter, "x", None),
            error(m.register_buffer, "x", None),
            error(lambda: list(m.parameters()))[0],
            error(lambda: m._parameters),
        ]

    same_as_torch(scenario)


def test_deleting(same_as_torch, error):
    def scenario(T):
        m, m.p, m.c, m.b = parts(T)
        m.n = 1
        for name in "pcbn":
            delattr(m, name)
        left = list(m._parameters), list(m._modules), list(m._buffers)
        return left, [error(delattr, m, name)[0] for name in "pz"], hasattr(m, "p")

    same_as_torch(scenario)


def test_missing_attributes(same_as_torch, error):
    same_as_torch(lambda T: error(getattr, T.nn.Identity(), "weight"))


def test_wrappers_may_call_the_getattr_of_module(same_as_torch, error):
    def scenario(T):
        class Wrapper(T.nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def __getattr__(self, name):
                try:
                    return super().__getattr__(name)
                except AttributeError:
                    return getattr(self.inner, name)

        w = Wrapper(T.nn.Flatten(2, 3))
        return w.start_dim, error(getattr, w, "nowhere"), type(w.inner).__name__

    same_as_torch(scenario)


def test_views_are_live_and_can_be_written(same_as_torch, error):
    def scenario(T):
        m, param, child, buffer = parts(T)
        params = m._parameters
        m.a = param
        params["b"] = T.nn.Parameter(T.ones(1))
        m._buffers["mean"] = T.zeros(1)
        m._modules["child"] = child
        found = [list(params), len(params), "a" in params, "mean" in params, m.b.tolist()]
        found += [m.mean.tolist(), m.child is child, params.get("zz"), list(params.keys())]
        found += [[v.tolist() for v in params.values()], [k for k, _ in params.items()]]
        del m._parameters["a"]
        found += [hasattr(m, "a"), error(lambda: m._parameters["a"]), error(params.pop, "a")]
        found += [params.pop("b").tolist(), list(m._parameters), dict(m._modules)["child"] is child]
        found += [error(lambda: m._buffers.__delitem__("child"))]
        m._parameters["w"] = None
        m.w2 = T.nn.Parameter(T.ones(1))
        found += [list(reversed(m._parameters)), repr(m._modules), list(m._modules.copy())]
        return found

    same_as_torch(scenario)


def test_views_can_be_replaced(same_as_torch):
    def scenario(T):
        m = T.nn.Sequential(T.nn.Identity(), T.nn.Flatten())
        m._modules = {str(i): c for i, c in enumerate(reversed(list(m)))}
        m._parameters = {"p": T.nn.Parameter(T.ones(1))}
        return repr(m), [n for n, _ in m.named_parameters()], len(m)

    same_as_torch(scenario)


def test_weight_norm_style_replacement(same_as_torch):
    """A parameter gives way to a tensor computed from others, as old-style hooks do it."""

    def scenario(T):
        m = T.nn.Module()
        m.weight = T.nn.Parameter(T.ones(2))
        weight = m.weight
        del m._parameters["weight"]
        m.register_parameter("weight_g", T.nn.Parameter(weight.data * 2))
        m.weight = m.weight_g * 3
        return [n for n, _ in m.named_parameters()], m.weight.tolist(), m.weight.requires_grad

    same_as_torch(scenario)


def test_properties_of_the_class_are_not_hidden(same_as_torch, error):
    def scenario(T):
        class WithProperty(T.nn.Module):
            @property
            def double(self):
                return self.single * 2

            @double.setter
            def double(self, value):
                self.single = T.nn.Parameter(value / 2)

        m = WithProperty()
        m.double = T.ones(1) * 6
        return m.double.tolist(), list(m._parameters), error(m.register_buffer, "double", None)

    same_as_torch(scenario)


def test_paths(same_as_torch, error):
    def scenario(T):
        class Net(T.nn.Module):
            def __init__(self):
                super().__init__()
                self.body = T.nn.Sequential(T.nn.Identity(), T.nn.Module())
                self.body[1].weight = T.nn.Parameter(T.ones(2))
                self.body[1].register_buffer("mean", T.zeros(1))
                self.body[1].plain = T.ones(1)

        m = Net()
        found = [
            m.get_submodule("") is m, m.get_submodule("body.1") is m.body[1],
            m.get_parameter("body.1.weight") is m.body[1].weight,
            m.get_buffer("body.1.mean") is m.body[1].mean,
        ]  # fmt: skip
        for get in (m.get_submodule, m.get_parameter, m.get_buffer):
            for path in ("nope", "body.7", "body.1.weight", "body.1.plain", "body.1.mean", "x.y"):
                found.append(error(get, path))
        return found

    same_as_torch(scenario)


def test_set_submodule(same_as_torch, error):
    def scenario(T):
        m = T.nn.Sequential(T.nn.Sequential(T.nn.Identity()))
        m.set_submodule("0.0", T.nn.Flatten())
        m.set_submodule("0.new", T.nn.Identity())
        m.set_submodule("1", T.nn.Identity())
        m.weight = T.nn.Parameter(T.ones(1))
        return [
            repr(m),
            error(m.set_submodule, "", T.nn.Identity()),
            error(m.set_submodule, "0", 3),
            error(m.set_submodule, "0.more", T.nn.Identity(), strict=True),
            error(m.set_submodule, "weight", T.nn.Identity()),
            error(m.set_submodule, "9.x", T.nn.Identity()),
        ]

    same_as_torch(scenario)


def test_register_buffer_may_be_overridden_without_persistent(same_as_torch):
    def scenario(T):
        class Old(T.nn.Module):
            def register_buffer(self, name, tensor):
                super().register_buffer(name, tensor)

        m = Old()
        m.register_buffer("a", T.zeros(1))
        m.a = T.ones(1)
        return m.a.tolist(), list(m.state_dict())

    same_as_torch(scenario)


def test_reading_a_parameter_is_an_ordinary_attribute_read():
    m = nn.Module()
    m.weight = nn.Parameter(gpunn.ones(1))
    m.child = nn.Identity()
    assert m.__dict__["weight"] is m.weight and m.__dict__["child"] is m.child
    assert type(m).__getattribute__ is object.__getattribute__


def test_registration_hooks(same_as_torch):
    def scenario(T):
        module = T.nn.modules.module
        seen = []

        def note(kind, replace=None):
            def hook(m, name, value):
                seen.append((kind, name, type(value).__name__))
                return replace

            return hook

        flat = T.nn.Flatten()
        handles = [
            module.register_module_parameter_registration_hook(note("parameter")),
            module.register_module_buffer_registration_hook(note("buffer")),
            module.register_module_module_registration_hook(note("module", flat)),
        ]
        try:
            m = T.nn.Module()
            m.p = T.nn.Parameter(T.ones(1))
            m.register_parameter("none", None)
            m.register_buffer("b", T.ones(1))
            m.c = T.nn.Identity()
            m.add_module("d", T.nn.Identity())
        finally:
            for handle in handles:
                handle.remove()
        m.e = T.nn.Identity()
        return seen, m.c is flat, m.d is flat, type(m.e).__name__

    same_as_torch(scenario)


def test_registration_hooks_replace_parameters():
    other = nn.Parameter(gpunn.zeros(3))
    with module.register_module_parameter_registration_hook(lambda m, name, p: other):
        m = nn.Module()
        m.p = nn.Parameter(gpunn.ones(1))
    assert m.p is other


@pytest.mark.parametrize("name", ["0", "with space", "ünïcode"])
def test_any_text_without_a_dot_is_a_name(name):
    m = nn.Module()
    m.register_parameter(name, nn.Parameter(gpunn.ones(1)))
    assert list(m.state_dict()) == [name]
