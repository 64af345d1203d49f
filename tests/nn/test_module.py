"""Module: the call, walks, modes, conversions, repr and copies."""

import copy
import pickle
import sys
import warnings

import numpy as np
import pytest

import gpunn
from gpunn import nn


class Scale(nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = nn.Parameter(gpunn.tensor(factor))
        self.register_buffer("calls", gpunn.tensor(0))

    def forward(self, x):
        return self.factor * x


def tree(T):
    """Three levels, a shared module, a shared parameter and None members."""

    class Leaf(T.nn.Module):
        def __init__(self, n):
            super().__init__()
            self.weight = T.nn.Parameter(T.ones(n))
            self.register_parameter("bias", None)
            self.register_buffer("mean", T.zeros(n))
            self.register_buffer("steps", T.tensor(3), persistent=False)
            self.n = n

        def forward(self, x):
            return x * self.weight + self.mean

        def extra_repr(self):
            return f"n={self.n}"

    class Tree(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Leaf(2)
            self.pair = T.nn.Sequential(Leaf(2), Leaf(2))
            self.again = self.first
            self.none = None
            self.add_module("missing", None)
            self.tied = self.pair[0].weight
            self.scale = T.nn.Parameter(T.ones(1))

        def forward(self, x):
            return self.pair(self.first(x)) * self.scale

    return Tree()


def test_names_and_order(same_as_torch):
    def scenario(T):
        model = tree(T)
        every = {"remove_duplicate": False}
        return [
            [n for n, _ in model.named_parameters()],
            [n for n, _ in model.named_parameters("top", recurse=False)],
            [n for n, _ in model.named_parameters(**every)],
            [n for n, _ in model.named_buffers()],
            [n for n, _ in model.named_buffers("a.b", **every)],
            [n for n, _ in model.named_modules()],
            [n for n, _ in model.named_modules(prefix="x", **every)],
            [n for n, _ in model.named_children()],
            [type(m).__name__ for m in model.children()],
            len(list(model.modules())),
            len(list(model.modules(**every))),
            len(list(model.parameters())),
            len(list(model.parameters(recurse=False))),
            [b.tolist() for b in model.buffers()],
            [n for n in dir(model) if n in ("first", "scale", "tied", "missing", "0")],
            [n for n in dir(model.pair) if n.isdigit()],
        ]

    same_as_torch(scenario)


def test_named_modules_leaves_out_what_is_in_memo():
    model = nn.Sequential(nn.Identity(), nn.Flatten())
    assert [n for n, _ in model.named_modules(memo={model[0]})] == ["", "1"]


def test_repr(same_as_torch):
    def scenario(T):
        class Lines(T.nn.Module):
            def extra_repr(self):
                return "first\nsecond"

        class Blank(T.nn.Module):
            def extra_repr(self):
                return "a\n\n  \nb"

        class Named(T.nn.Module):
            def _get_name(self):
                return "Other"

        class Both(T.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = Lines()
                self.blank = Blank()

            def extra_repr(self):
                return "one line"

        models = [tree(T), Lines(), Blank(), Named(), Both(), T.nn.Module()]
        models += [T.nn.Sequential(Both(), Both()), T.nn.ModuleList([Both(), Both(), Lines()])]
        return [repr(model) for model in models]

    same_as_torch(scenario)


def test_call_runs_forward_with_what_it_was_given(same_as_torch):
    def scenario(T):
        class Echo(T.nn.Module):
            def forward(self, *args, **kwargs):
                return args, kwargs

        model = Echo()
        other = Echo()
        other.forward = lambda x: x + 1
        return model(1, 2, three=3), other(1)

    same_as_torch(scenario)


def test_missing_forward(same_as_torch, error):
    same_as_torch(lambda T: error(T.nn.Module(), 1))
    same_as_torch(lambda T: error(T.nn.ModuleList([]), 1))


def test_arguments_of_init(same_as_torch, error):
    def scenario(T):
        class Mixin:
            def __init__(self, a=0, **kwargs):
                self.a = a

        class Calls(T.nn.Module, Mixin):
            call_super_init = True

        return [error(T.nn.Module, 1, 2), error(T.nn.Module, b=1), Calls(a=5).a]

    same_as_torch(scenario)


class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("broken")


class Chain(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), inner])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_errors_name_the_path_of_the_module_once():
    model = nn.Sequential(nn.Identity(), Chain(nn.Sequential(Broken())))
    with pytest.raises(ValueError, match="^broken") as caught:
        model(1)
    notes = caught.value.__notes__
    assert notes == ["in 1.layers.1.0"]
    if sys.version_info < (3, 11):
        assert str(caught.value) == "broken\nin 1.layers.1.0"
    else:
        assert caught.value.args == ("broken",)


def test_errors_name_the_path_through_hooked_modules():
    model = nn.Sequential(Chain(Broken()))
    model.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(ValueError, match="broken") as caught:
        model(1)
    assert caught.value.__notes__ == ["in 0.layers.1"]


def test_the_outermost_module_has_no_path():
    with pytest.raises(ValueError, match="^broken$") as caught:
        Broken()(1)
    assert not hasattr(caught.value, "__notes__")


def test_errors_name_the_class_of_a_module_that_is_not_registered():
    hidden = [nn.Sequential(Broken())]

    class Holder(nn.Module):
        def forward(self, x):
            return hidden[0](x)

    with pytest.raises(ValueError, match="broken") as caught:
        nn.Sequential(Holder())(1)
    assert caught.value.__notes__ == ["in 0.<Sequential>.0"]


def test_errors_of_a_module_that_calls_itself():
    class Recursive(nn.Module):
        def forward(self, depth):
            return self(depth - 1) if depth else 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        nn.Sequential(Recursive())(3)
    assert caught.value.__notes__ == ["in 0"]


def test_errors_keep_arguments_that_are_no_message():
    class Key(nn.Module):
        def forward(self, x):
            return {}[x]

    with pytest.raises(KeyError) as caught:
        nn.Sequential(Key())("missing")
    assert caught.value.args == ("missing",)
    assert caught.value.__notes__ == ["in 0"]
    pickle.loads(pickle.dumps(caught.value))


def test_apply_visits_children_first(same_as_torch):
    def scenario(T):
        seen = []
        model = tree(T)
        returned = model.apply(lambda m: seen.append(type(m).__name__))
        return seen, returned is model

    same_as_torch(scenario)


def test_train_and_eval(same_as_torch, error):
    def scenario(T):
        model = tree(T)
        before = [m.training for m in model.modules()]
        model.eval()
        after = [m.training for m in model.modules()]
        model.pair.train()
        mixed = [m.training for m in model.modules()]
        return before, after, mixed, model.train() is model, error(model.train, 1)

    same_as_torch(scenario)


def test_requires_grad(same_as_torch):
    def scenario(T):
        model = tree(T)
        model.first.requires_grad_(False)
        return [p.requires_grad for p in model.parameters()], model.requires_grad_() is model

    same_as_torch(scenario)


def test_zero_grad(same_as_torch):
    def scenario(T):
        model = tree(T)
        model(T.ones(2)).sum().backward()
        grads = [p.grad for p in model.parameters()]
        filled = [g.tolist() for g in grads]
        model.zero_grad(set_to_none=False)
        same = all(p.grad is g for p, g in zip(model.parameters(), grads))
        zeros = [p.grad.tolist() for p in model.parameters()]
        model.zero_grad()
        return filled, same, zeros, [p.grad for p in model.parameters()]

    same_as_torch(scenario)


def test_zero_grad_of_a_gradient_with_history():
    model = Scale()
    model(gpunn.ones(2)).sum().backward(create_graph=True)
    model.zero_grad(set_to_none=False)
    assert model.factor.grad.grad_fn is None
    assert model.factor.grad.item() == 0


@pytest.mark.parametrize(
    "convert",
    [
        lambda T, m: m.to(T.float64),
        lambda T, m: m.to("cpu"),
        lambda T, m: m.to("cpu", T.float16),
        lambda T, m: m.to(T.device("cpu"), dtype=T.bfloat16, non_blocking=True),
        lambda T, m: m.to(dtype=T.float64),
        lambda T, m: m.to(device="cpu"),
        lambda T, m: m.to(T.ones(1, dtype=T.float64)),
        lambda T, m: m.to(tensor=T.ones(1, dtype=T.float16)),
        lambda T, m: m.to(None, T.float64),
        lambda T, m: m.to(T.float64, True),
        lambda T, m: m.double().float(),
        lambda T, m: m.double(),
        lambda T, m: m.half(),
        lambda T, m: m.bfloat16(),
        lambda T, m: m.type(T.float64),
        lambda T, m: m.cpu(),
    ],
)
def test_conversions(same_as_torch, convert):
    def scenario(T):
        model = tree(T)
        model(T.ones(2)).sum().backward()
        params = list(model.parameters())
        returned = convert(T, model)
        return (
            returned is model,
            all(p is q for p, q in zip(params, model.parameters())),
            [str(p.dtype) for p in model.parameters()],
            [str(p.grad.dtype) for p in model.parameters()],
            [str(b.dtype) for b in model.buffers()],
            [p.requires_grad and p.is_leaf for p in model.parameters()],
        )

    same_as_torch(scenario)


def test_to_refuses_integers_and_nonsense(same_as_torch, error):
    def scenario(T):
        model = tree(T)
        calls = [(3.5, 4), ("cpu", "cpu"), (T.float32, "cpu")]
        kinds = [error(model.to, *args)[0] for args in calls]
        return kinds, error(model.to, T.int64), error(model.to, bogus=1)[0]

    same_as_torch(scenario)
    with pytest.raises(TypeError, match=r"invalid combination of arguments - got \(device=, x=\)"):
        nn.Module().to(device="cpu", x=1)
    with pytest.raises(TypeError, match="invalid combination"):
        nn.Module().to("cpu", device="cpu")


def test_a_second_device():
    model = Scale().to("cpu:1")
    assert {str(t.device) for t in (*model.parameters(), *model.buffers())} == {"cpu:1"}
    x = gpunn.ones(2, device="cpu:1")
    model(x).sum().backward()
    model.cpu()
    assert str(model.factor.device) == str(model.factor.grad.device) == "cpu"


def test_to_empty(same_as_torch):
    def scenario(T):
        model = tree(T)
        first = model.first.weight
        model.to_empty(device="cpu", recurse=True)
        return (
            model.first.weight is first,
            [tuple(p.shape) for p in model.parameters()],
            [str(b.dtype) for b in model.buffers()],
        )

    same_as_torch(scenario)


def test_an_optimizer_sees_converted_parameters():
    model = Scale()
    held = list(model.parameters())
    model.double()
    held[0].data.fill_(5)
    assert model(gpunn.tensor(2.0, dtype=gpunn.float64)).item() == 10


def test_share_memory(same_as_torch):
    def scenario(T):
        model = tree(T)
        return model.share_memory() is model, model(T.ones(2)).tolist()

    same_as_torch(scenario)


def test_compile_changes_nothing():
    model = Scale()
    model.compile()
    assert model(gpunn.tensor(3.0)).item() == 6


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_deep_copies_are_independent(duplicate):
    model = nn.Sequential(Scale(), Scale())
    model[0].factor.grad = gpunn.tensor(1.0)
    model[1].factor = model[0].factor
    model.register_forward_hook(print_nothing)
    copied = duplicate(model)
    assert repr(copied) == repr(model)
    assert copied[0].factor is copied[1].factor
    assert copied[0].factor is not model[0].factor
    assert copied[0].factor.grad is None
    assert isinstance(copied[0].factor, nn.Parameter)
    assert copied.state_dict().keys() == model.state_dict().keys()
    copied[0].factor.data.fill_(7)
    copied[0].register_buffer("extra", gpunn.zeros(1))
    assert model[0].factor.item() == 2
    assert "0.extra" not in model.state_dict()
    assert len(copied._forward_hooks) == 1
    assert copied(gpunn.tensor(1.0)).item() == 49


def print_nothing(module, args, output):
    """A hook that can be pickled."""


def test_shallow_copies_share_tensors_but_not_names():
    model = Scale()
    copied = copy.copy(model)
    assert copied.factor is model.factor
    copied.more = nn.Parameter(gpunn.ones(1))
    assert [n for n, _ in model.named_parameters()] == ["factor"]
    assert [n for n, _ in copied.named_parameters()] == ["factor", "more"]


def test_replicas_share_all_but_parameters(same_as_torch):
    def scenario(T):
        model = tree(T)
        replica = model._replicate_for_data_parallel()
        names = [n for n, _ in replica.named_parameters(recurse=False)]
        replica.tied = T.ones(2)
        left = len(list(model.parameters(recurse=False)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            replica.zero_grad()
        return names, left, replica._modules["first"] is model.first, len(caught)

    same_as_torch(scenario)


def test_a_model_is_freed_without_the_garbage_collector():
    import gc
    import weakref

    gc.disable()
    try:
        model = nn.Sequential(Scale(), nn.ModuleList([Scale()]))
        model.register_forward_hook(print_nothing)
        dead = weakref.ref(model)
        list(model.named_parameters()), model.state_dict(), model._parameters
        del model
        assert dead() is None
    finally:
        gc.enable()


def test_modules_hash_by_identity_and_compare_by_it():
    a, b = nn.Identity(), nn.Identity()
    assert a != b and len({a, b, a}) == 2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Linear(2, 2), r"linear\(\): argument 'input' \(position 1\)"),
        (lambda: nn.Conv1d(2, 2, 1), r"Conv1d\(\): argument 'input' \(position 1\)"),
        (lambda: nn.Softmax(-1), r"softmax\(\): argument 'input' \(position 1\)"),
        (lambda: nn.Embedding(2, 2), r"embedding\(\): argument 'indices' \(position 2\)"),
    ],
)
@pytest.mark.parametrize(
    "value, kind",
    [(np.ones((2, 2)), "numpy.ndarray"), (None, "NoneType"), ((gpunn.ones(2), None), "tuple")],
)
def test_what_is_no_tensor_is_named_with_the_module_that_got_it(make, message, value, kind):
    model = nn.Sequential(nn.Sequential(nn.Identity(), make()))
    with pytest.raises(TypeError, match=f"{message} must be Tensor, not {kind}") as caught:
        model(value)
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["in 0.1"]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_attribute_error_of_the_users_own_stays():
    class Own(nn.Module):
        def forward(self, x):
            return x.array_of_mine

    with pytest.raises(AttributeError, match="array_of_mine"):
        Own()(gpunn.ones(1))
