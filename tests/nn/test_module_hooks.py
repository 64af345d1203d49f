"""A module's hooks: when they run, with what, and what they may change."""

import copy
import gc
import pickle
import warnings

import pytest

import gpunn
from gpunn import nn
from gpunn.nn import module_hooks


def scale(T, factor=2.0):
    class Scale(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = T.nn.Parameter(T.tensor(factor))

        def forward(self, x, offset=0):
            return x * self.factor + offset

    return Scale()


def plain(value):
    """Tensors as lists, in any nesting of tuples, lists and dicts."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def recorder(log, name, returns=None):
    def hook(module, *args):
        log.append((name, type(module).__name__, plain(args)))
        return returns

    return hook


@pytest.fixture(autouse=True)
def no_global_hooks():
    yield
    for name, hooks in vars(module_hooks).items():
        if name.startswith("_global") and isinstance(hooks, dict):
            hooks.clear()
    module_hooks._global_is_full_backward_hook = None


def test_order_and_arguments(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        m.register_forward_pre_hook(recorder(log, "pre1"))
        m.register_forward_pre_hook(recorder(log, "pre2"), prepend=True)
        m.register_forward_pre_hook(recorder(log, "pre3"), with_kwargs=True)
        m.register_forward_hook(recorder(log, "post1"))
        m.register_forward_hook(recorder(log, "post2"), prepend=True)
        m.register_forward_hook(recorder(log, "post3"), with_kwargs=True, always_call=True)
        out = m(T.ones(2), offset=1)
        return log, plain(out)

    same_as_torch(scenario)


def test_hooks_change_arguments_and_output(same_as_torch, error):
    def scenario(T):
        m = scale(T)
        m.register_forward_pre_hook(lambda m, args: args[0] + 1)
        m.register_forward_pre_hook(lambda m, args: (args[0] * 2, 10))
        m.register_forward_pre_hook(
            lambda m, args, kwargs: ((args[0],), {"offset": args[1] + 1}), with_kwargs=True
        )
        m.register_forward_hook(lambda m, args, out: out + 0.5)
        m.register_forward_hook(
            lambda m, args, kwargs, out: out + kwargs["offset"], with_kwargs=True
        )
        first = plain(m(T.ones(2)))
        bad = scale(T)
        bad.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
        return first, error(bad, 1)

    same_as_torch(scenario)


def test_handles(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        with m.register_forward_hook(recorder(log, "with")) as handle:
            m(T.ones(1))
        m(T.ones(1))
        handle.remove()
        kept = m.register_forward_pre_hook(recorder(log, "kept"), with_kwargs=True)
        m(T.ones(1))
        left = [len(m._forward_hooks), len(m._forward_pre_hooks)]
        left.append(len(m._forward_pre_hooks_with_kwargs))
        kept.remove()
        m(T.ones(1))
        return log, left, len(m._forward_pre_hooks), len(m._forward_pre_hooks_with_kwargs)

    same_as_torch(scenario)


def test_the_flag_falls_back_when_hooks_are_gone():
    m = scale(gpunn)
    assert not m._hooked
    handle = m.register_forward_hook(lambda *args: None)
    assert m._hooked
    handle.remove()
    m(gpunn.ones(1))
    assert not m._hooked
    with module_hooks.register_module_forward_hook(lambda *args: None):
        assert nn.Identity()._hooked
    m(gpunn.ones(1))
    assert not m._hooked


def test_state_dict_hooks_do_not_slow_down_the_call():
    m = scale(gpunn)
    m.register_state_dict_pre_hook(lambda *args: None)
    m.register_load_state_dict_post_hook(lambda *args: None)
    m.state_dict()
    assert not m._hooked


def test_hooks_put_into_the_dictionaries_by_hand_run(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        m._forward_hooks[12345] = recorder(log, "by hand")
        m(T.ones(1))
        m._forward_hooks.clear()
        m(T.ones(1))
        m._forward_pre_hooks = type(m._forward_pre_hooks)({1: recorder(log, "replaced")})
        m(T.ones(1))
        return log

    same_as_torch(scenario)


def test_always_call(same_as_torch, error):
    def scenario(T):
        class Broken(T.nn.Module):
            def forward(self, x):
                raise ValueError("broken")

        def broken_hook(module, args, output):
            raise RuntimeError("hook")

        log = []
        m = Broken()
        m.register_forward_hook(recorder(log, "normal"))
        m.register_forward_hook(recorder(log, "always"), always_call=True)
        m.register_forward_hook(broken_hook, always_call=True)
        m.register_forward_hook(recorder(log, "kwargs"), always_call=True, with_kwargs=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = error(m, 1)
        return log, found, [str(w.message) for w in caught]

    same_as_torch(scenario)


def test_always_called_hooks_run_once_when_a_later_hook_raises(same_as_torch, error):
    def scenario(T):
        def broken_hook(module, args, output):
            raise RuntimeError("hook")

        log = []
        m = scale(T)
        m.register_forward_hook(recorder(log, "first"), always_call=True)
        m.register_forward_hook(broken_hook)
        m.register_forward_hook(recorder(log, "last"), always_call=True)
        return error(m, T.ones(1)), log

    same_as_torch(scenario)


def test_global_forward_hooks(same_as_torch, error):
    def scenario(T):
        log = []
        module = T.nn.modules.module
        m = T.nn.Sequential(scale(T))
        m[0].register_forward_pre_hook(recorder(log, "own pre"))
        m[0].register_forward_hook(recorder(log, "own post"))
        handles = [
            module.register_module_forward_pre_hook(recorder(log, "pre")),
            module.register_module_forward_hook(recorder(log, "post")),
            module.register_module_forward_hook(recorder(log, "kwargs"), with_kwargs=True),
            module.register_module_forward_hook(recorder(log, "always"), always_call=True),
        ]
        m(T.ones(1))
        failed = error(m, None)[0]
        for handle in handles:
            handle.remove()
        m(T.ones(1))
        return log, failed

    same_as_torch(scenario)


def test_full_backward_hooks(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        m.register_full_backward_hook(recorder(log, "post1"))
        m.register_full_backward_hook(recorder(log, "post2"), prepend=True)
        m.register_full_backward_pre_hook(recorder(log, "pre1"))
        m.register_full_backward_pre_hook(recorder(log, "pre2"), prepend=True)
        x = T.ones(2, requires_grad=True)
        out = m(x)
        name = out.grad_fn.name()
        out.sum().backward()
        return log, name, plain(x.grad), plain(m.factor.grad)

    same_as_torch(scenario)


def test_full_backward_hooks_change_gradients(same_as_torch):
    def scenario(T):
        m = scale(T)
        m.register_full_backward_pre_hook(lambda m, go: (go[0] * 10,))
        m.register_full_backward_hook(lambda m, gi, go: (gi[0] + go[0],))
        x = T.ones(2, requires_grad=True)
        m(x).sum().backward()
        return plain(x.grad), plain(m.factor.grad)

    same_as_torch(scenario)


def test_full_backward_hooks_of_several_inputs_and_outputs(same_as_torch):
    def scenario(T):
        class Two(T.nn.Module):
            def forward(self, a, n, b, c=None):
                return a * 2 + c, "text", b * 3, b.detach()

        log = []
        m = Two()
        m.register_full_backward_hook(recorder(log, "post"))
        m.register_full_backward_pre_hook(recorder(log, "pre"))
        a, b, c = (T.ones(2, requires_grad=True) for _ in range(3))
        const = T.ones(2)
        first = m(a, 5, b, c=c)
        first[0].sum().backward()
        (m(a, 5, b, c=c)[2] * 4).sum().backward()
        out = m(a, 5, const, c=c)
        (out[0] + out[2]).sum().backward()
        return log, plain(first), plain([t.grad for t in (a, b, c)])

    same_as_torch(scenario)


def test_full_backward_hooks_without_input_gradients(same_as_torch, error):
    def scenario(T):
        log = []
        m = scale(T)
        m.register_full_backward_hook(recorder(log, "post"))
        m.register_full_backward_pre_hook(recorder(log, "pre"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            m(T.ones(2)).sum().backward()
            m.register_full_backward_hook(recorder(log, "bad", (T.ones(2),)))
            found = error(m(T.ones(2)).sum().backward)
        return log, plain(m.factor.grad), found, [str(w.message)[:120] for w in caught]

    same_as_torch(scenario)


def test_backward_hooks_do_not_run_without_gradients(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        m.register_full_backward_hook(recorder(log, "post"))
        with T.no_grad():
            m(T.ones(2, requires_grad=True))
        m.requires_grad_(False)
        return m(T.ones(2)).requires_grad, log

    same_as_torch(scenario)


def test_backward_hooks_of_other_outputs(same_as_torch):
    def scenario(T):
        class Dict(T.nn.Module):
            def forward(self, x):
                return {"y": x * 2}

        class Pair(tuple):
            pass

        log = []
        m = Dict()
        m.register_full_backward_hook(recorder(log, "post"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = T.ones(2, requires_grad=True)
            m(x)["y"].sum().backward()
        return log, plain(x.grad), [str(w.message) for w in caught]

    same_as_torch(scenario)


def test_backward_hooks_keep_named_tuples():
    from typing import NamedTuple

    class Out(NamedTuple):
        y: gpunn.Tensor
        label: str

    class Named(nn.Module):
        def forward(self, x):
            return Out(x * 2, "label")

    m = Named()
    m.register_full_backward_hook(lambda m, gi, go: None)
    out = m(gpunn.ones(2, requires_grad=True))
    assert type(out) is Out and out.label == "label" and out.y.requires_grad


def test_backward_hooks_of_wrong_length(same_as_torch, error):
    def scenario(T):
        found = []
        for register in ("register_full_backward_hook", "register_full_backward_pre_hook"):
            m = scale(T)
            getattr(m, register)(lambda *args: (None, None))
            found.append(error(m(T.ones(2, requires_grad=True)).sum().backward))
        return found

    same_as_torch(scenario)


def test_backward_hooks_in_a_graph_that_is_used_twice(same_as_torch):
    def scenario(T):
        log = []
        m = scale(T)
        m.register_full_backward_hook(recorder(log, "post"))
        x = T.ones(2, requires_grad=True)
        loss = (m(x) ** 2).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        return log, plain(x.grad)

    same_as_torch(scenario)


def test_backward_hooks_and_second_order(same_as_torch):
    def scenario(T):
        m = scale(T, 3.0)
        m.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2,))
        x = T.ones(2, requires_grad=True)
        (g,) = T.autograd.grad((m(x) ** 3).sum(), x, create_graph=True)
        g.sum().backward()
        return plain(g), plain(x.grad)

    same_as_torch(scenario)


def test_global_backward_hooks(same_as_torch):
    def scenario(T):
        log = []
        module = T.nn.modules.module
        m = T.nn.Sequential(scale(T), scale(T, 3.0))
        m[0].register_full_backward_hook(recorder(log, "own"))
        m[0].register_full_backward_pre_hook(recorder(log, "own pre"))
        with (
            module.register_module_full_backward_hook(recorder(log, "global")),
            module.register_module_full_backward_pre_hook(recorder(log, "global pre")),
        ):
            m(T.ones(1, requires_grad=True)).sum().backward()
        return log

    same_as_torch(scenario)


def test_kinds_of_backward_hooks_do_not_mix(same_as_torch, error):
    def scenario(T):
        full, partial = scale(T), scale(T)
        full.register_full_backward_hook(print)
        partial.register_backward_hook(print)
        return error(full.register_backward_hook, print), error(
            partial.register_full_backward_hook, print
        )

    same_as_torch(scenario)
    with nn.modules.module.register_module_backward_hook(print), pytest.raises(
        RuntimeError, match="as a global Module hook"
    ):
        nn.modules.module.register_module_full_backward_hook(print)


def test_non_full_backward_hooks(same_as_torch):
    def scenario(T):
        class Double(T.nn.Module):
            def forward(self, x):
                return x * 2

        log = []
        m = Double()
        m.register_backward_hook(recorder(log, "hook"))
        x = T.ones(2, requires_grad=True)
        y = x * 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            m(y).sum().backward()
        return log, plain(x.grad), [str(w.message) for w in caught]

    same_as_torch(scenario)


def test_non_full_backward_hooks_warn_of_what_they_miss(same_as_torch):
    def scenario(T):
        class Any(T.nn.Module):
            def __init__(self, function):
                super().__init__()
                self.function = function

            def forward(self, *args):
                return self.function(*args)

        x = T.ones(2, requires_grad=True) * 1
        found = []
        for function, args in (
            (lambda a: {"x": a * 2}, (x,)),
            (lambda a, n: a * 2, (x, 3)),
            (lambda a: (a * 2, a * 3), (x,)),
            (lambda a: (a * 2) * 2, (x,)),
            (lambda a: (a.detach(), a * 2), (x,)),
        ):
            m = Any(function)
            m.register_backward_hook(lambda *args: None)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                m(*args)
            found.append([(w.category.__name__, str(w.message)[:60]) for w in caught])
        return found

    same_as_torch(scenario)


def test_state_dict_hooks(same_as_torch, error):
    def scenario(T):
        log = []
        m = T.nn.Sequential(scale(T))
        m.register_state_dict_pre_hook(recorder(log, "pre"))
        m[0].register_state_dict_pre_hook(recorder(log, "inner pre"))

        def post(module, state, prefix, metadata):
            state[prefix + "more"] = metadata

        def replace(module, state, prefix, metadata):
            return {"replaced": list(state)}

        m[0].register_state_dict_post_hook(post)
        first = plain(dict(m.state_dict()))
        m._register_state_dict_hook(replace)
        second = m.state_dict()
        bad = scale(T)
        bad.register_state_dict_post_hook(lambda *args: 3)
        return log, first, second, error(bad.state_dict), error(bad._register_state_dict_hook, post)

    same_as_torch(scenario)


def test_load_state_dict_hooks(same_as_torch, error):
    def scenario(T):
        log = []
        m = T.nn.Sequential(scale(T))

        def rename(module, state, prefix, metadata, strict, missing, unexpected, errors):
            log.append((type(module).__name__, prefix, metadata, strict, missing, unexpected))
            if prefix + "old" in state:
                state[prefix + "factor"] = state.pop(prefix + "old")

        def without_module(state, prefix, *rest):
            log.append((sorted(state), prefix, len(rest)))

        m[0].register_load_state_dict_pre_hook(rename)
        m[0]._register_load_state_dict_pre_hook(without_module)
        m.register_load_state_dict_post_hook(lambda m, keys: log.append(list(map(list, keys))))
        m.load_state_dict({"0.old": T.tensor(5.0)})
        value = m[0].factor.item()
        forgive = scale(T)
        forgive.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
        forgiven = [list(keys) for keys in forgive.load_state_dict({})]
        bad = scale(T)
        bad.register_load_state_dict_post_hook(lambda m, keys: 3)
        return log, value, forgiven, error(bad.load_state_dict, bad.state_dict())

    same_as_torch(scenario)


def loud(module, *args):
    """A load hook that can be pickled."""
    module.heard = True


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copied_hooks_belong_to_the_copy(duplicate):
    m = nn.Identity()
    m.register_load_state_dict_pre_hook(loud)
    copied = duplicate(m)
    del m
    gc.collect()
    copied.load_state_dict({})
    assert copied.heard


def test_the_hook_of_a_dead_module():
    m = nn.Identity()
    hook = module_hooks.WrappedHook(loud, m)
    assert hook.__name__ == "loud"
    del m
    gc.collect()
    with pytest.raises(RuntimeError, match="hook of a dead Module"):
        hook()


def test_backward_hooks_forbid_changes_in_place(same_as_torch, error):
    def scenario(T):
        class InPlace(T.nn.Module):
            def forward(self, x):
                return x.mul_(2)

        def kind(call, *args):
            found = error(call, *args)
            return found[0], "is a view and is being modified inplace" in found[1]

        m = InPlace()
        m.register_full_backward_hook(lambda *args: None)
        x = T.ones(2, requires_grad=True)
        inner = kind(m, x * 1)
        out = scale(T)
        out.register_full_backward_hook(lambda *args: None)
        y = out(x)
        with T.no_grad():
            allowed = error(y.add_, 1)
        return inner, kind(out(x).add_, 1), kind(out(x)[:1].add_, 1), allowed

    same_as_torch(scenario)
