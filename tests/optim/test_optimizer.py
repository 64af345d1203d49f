"""Parameter groups, state dictionaries, hooks and errors of the base class, against PyTorch."""

import copy
import pickle
import warnings

import pytest

import gpunn
from gpunn import nn
from gpunn.optim import SGD, Adam
from gpunn.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
    required,
)


def parameter(*values):
    return gpunn.tensor(values or (1.0, 2.0), requires_grad=True)


def outcomes(scenario):
    """What a scenario returns or raises with either library."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for library in (gpunn, torch):
        try:
            found.append(scenario(library))
        except Exception as error:
            found.append((type(error), str(error)))
    return found


@pytest.mark.parametrize(
    "params",
    [
        lambda lib: lib.ones(1),
        lambda lib: [],
        lambda lib: [1],
        lambda lib: ["a", "b"],
        lambda lib: [lib.ones(1, requires_grad=True) * 2],
        lambda lib: [{"params": {lib.ones(1)}}],
        lambda lib: [("a", lib.ones(1)), lib.ones(2)],
        lambda lib: [{"params": [("a", lib.ones(1))]}, {"params": [lib.ones(2)]}],
        lambda lib: [{"params": [lib.ones(1)]}, {"params": [("a", lib.ones(2))]}],
        lambda lib: [lib.ones(1), {"params": lib.ones(2)}],
    ],
)
def test_errors_for_parameters(params):
    mine, theirs = outcomes(lambda lib: repr(lib.optim.SGD(params(lib))))
    assert mine[0] is theirs[0]
    shared = theirs[1].split(", but got")[0].split(" is torch.")[0]
    assert mine[1].startswith(shared[:60])


def test_a_parameter_in_two_groups_is_refused():
    p = parameter()
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        SGD([{"params": [p]}, {"params": [p]}])


def test_a_parameter_twice_in_a_group_warns():
    p = parameter()
    with pytest.warns(UserWarning, match="duplicate parameters; in future, this will cause"):
        SGD([p, p])


def test_an_option_without_default_must_be_given():
    class Plain(Optimizer):
        def __init__(self, params, lr=required):
            super().__init__(params, {"lr": lr})

    assert repr(required) == "<required parameter>"
    with pytest.raises(ValueError, match="didn't specify a value of required optimization par"):
        Plain([parameter()])
    assert Plain([{"params": [parameter()], "lr": 0.5}]).param_groups[0]["lr"] == 0.5
    with pytest.raises(NotImplementedError):
        Plain([parameter()], lr=1).step()


def test_groups_take_their_own_options_and_the_defaults():
    a, b = parameter(1.0), parameter(1.0)
    optimizer = SGD([{"params": a, "lr": 0.5}, {"params": (b,)}], lr=0.25)
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.25]
    a.grad = b.grad = gpunn.ones(1)
    optimizer.step()
    assert (a.item(), b.item()) == (0.5, 0.75)
    with pytest.raises(TypeError, match="param_group must be a dict, but got"):
        optimizer.add_param_group([parameter()])
    c = parameter(1.0)
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    c.grad = gpunn.ones(1)
    optimizer.step()
    assert c.item() == 0.0


def test_repr_equals_pytorchs():
    def scenario(lib):
        groups = [{"params": [lib.ones(1)]}, {"params": [lib.ones(2)], "lr": lib.tensor(0.5)}]
        return repr(lib.optim.AdamW(groups, lr=0.1))

    mine, theirs = outcomes(scenario)
    assert mine == theirs


def test_named_parameters_keep_their_names_in_the_state_dict():
    def scenario(lib):
        named = [("w", lib.nn.Parameter(lib.ones(1))), ("b", lib.nn.Parameter(lib.ones(2)))]
        optimizer = lib.optim.SGD(named, lr=0.5)
        other = lib.optim.SGD([("x", lib.ones(1)), ("y", lib.ones(2))], lr=0.1)
        other.load_state_dict(optimizer.state_dict())
        nameless = optimizer.state_dict()
        del nameless["param_groups"][0]["param_names"]
        third = lib.optim.SGD([("x", lib.ones(1)), ("y", lib.ones(2))], lr=0.1)
        third.load_state_dict(nameless)
        return [o.state_dict()["param_groups"] for o in (optimizer, other, third)]

    mine, theirs = outcomes(scenario)
    assert mine == theirs
    assert mine[1][0]["param_names"] == ["w", "b"]


def trained(steps=2, **kwargs):
    p = parameter()
    optimizer = Adam([p], lr=0.1, **kwargs)
    for _ in range(steps):
        p.grad = gpunn.ones(2)
        optimizer.step()
    return p, optimizer


def test_a_loaded_state_is_a_copy():
    p, optimizer = trained()
    q = p.detach().clone().requires_grad_()
    other = Adam([q])
    other.load_state_dict(optimizer.state_dict())
    q.grad = gpunn.ones(2)
    other.step()
    assert optimizer.state[p]["step"].item() == 2.0
    assert other.state[q]["step"].item() == 3.0
    p.grad = gpunn.ones(2)
    optimizer.step()
    assert p.tolist() == q.tolist()


def test_states_follow_the_dtype_of_the_parameter_but_for_the_step():
    _, optimizer = trained()
    q = gpunn.ones(2, dtype=gpunn.float64, requires_grad=True)
    other = Adam([q])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[q]["exp_avg"].dtype is gpunn.float64
    assert other.state[q]["step"].dtype is gpunn.float32
    device = gpunn.device("cpu:1")
    r = gpunn.ones(2, device=device, requires_grad=True)
    third = Adam([r])
    third.load_state_dict(optimizer.state_dict())
    assert third.state[r]["exp_avg"].device is device
    assert third.state[r]["step"].device is gpunn.device("cpu")


def test_numpy_arrays_and_plain_numbers_of_other_checkpoints():
    p, optimizer = trained()
    state = copy.deepcopy(optimizer.state_dict())
    first = state["state"][0]
    state["state"][0] = {
        "step": 2, "exp_avg": first["exp_avg"].numpy(), "exp_avg_sq": first["exp_avg_sq"].numpy(),
    }  # fmt: skip
    q = p.detach().clone().requires_grad_()
    other = Adam([q])
    other.load_state_dict(state)
    assert other.state[q]["step"].item() == 2.0
    for x, o in ((p, optimizer), (q, other)):
        x.grad = gpunn.ones(2)
        o.step()
    assert p.tolist() == q.tolist()


def test_options_that_an_old_checkpoint_lacks_are_filled_in():
    p, optimizer = trained()
    state = copy.deepcopy(optimizer.state_dict())
    del state["param_groups"][0]["maximize"]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["maximize"] is False


def test_state_dicts_of_other_shapes_are_refused():
    p, optimizer = trained()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="a different number of parameter groups"):
        SGD([{"params": p}, {"params": parameter()}]).load_state_dict(state)
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        SGD([p, parameter()]).load_state_dict(state)


def test_state_without_parameter_is_kept():
    p, optimizer = trained()
    state = optimizer.state_dict()
    state["state"]["note"] = "kept"
    other = Adam([p])
    other.load_state_dict(state)
    assert other.state["note"] == "kept"
    assert other.state_dict()["state"]["note"] == "kept"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on_alike(copied):
    p, optimizer = trained(amsgrad=True)
    other = copied(optimizer)
    q = other.param_groups[0]["params"][0]
    assert q is not p
    for x, o in ((p, optimizer), (q, other)):
        x.grad = gpunn.ones(2)
        o.step()
    assert p.tolist() == q.tolist()
    other.register_step_pre_hook(lambda *_: None)


def test_zero_grad():
    p, q = parameter(), parameter()
    optimizer = SGD([p, q])
    (p.sum() * 2).backward(create_graph=True)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0] and not p.grad.requires_grad and q.grad is None
    optimizer.zero_grad()
    assert p.grad is None


def test_the_closure_records_gradients_and_its_loss_is_returned():
    p = parameter()
    for optimizer in (SGD([p]), Adam([p]), gpunn.optim.Adafactor([p]), gpunn.optim.Rprop([p])):

        def closure(optimizer=optimizer):
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        before = (p * p).sum().item()
        with gpunn.no_grad():
            assert optimizer.step(closure).item() == before
        assert (p * p).sum().item() < before


def test_a_step_is_noticed_by_a_backward_that_needs_the_old_values():
    p = parameter()
    loss = (p * p).sum()
    optimizer = SGD([p])
    p.grad = gpunn.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_step_hooks_run_in_pytorchs_order_and_may_change_the_arguments():
    def scenario(lib):
        optimizer_module = __import__(f"{lib.__name__}.optim.optimizer", fromlist=["x"])
        calls = []
        p = lib.ones(1, requires_grad=True)
        optimizer = lib.optim.SGD([p])

        def closure():
            calls.append("closure")
            return 3.0

        handles = [
            optimizer_module.register_optimizer_step_pre_hook(
                lambda o, args, kwargs: calls.append(("global pre", o is optimizer, len(args)))
            ),
            optimizer_module.register_optimizer_step_post_hook(
                lambda o, args, kwargs: calls.append(("global post", kwargs == {}))
            ),
            optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, closure), kwargs)),
            optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("post")),
        ]
        calls.append(optimizer.step())
        for handle in handles:
            handle.remove()
        calls.append(optimizer.step())
        return calls

    mine, theirs = outcomes(scenario)
    assert mine == theirs
    assert mine.count("closure") == 1


def test_a_hook_that_returns_something_else_is_an_error():
    optimizer = SGD([parameter()])
    optimizer.register_step_pre_hook(lambda *_: 5)
    with pytest.raises(RuntimeError, match="must return None or a tuple of \\(new_args, new_kwar"):
        optimizer.step()


def test_hooks_run_once_where_a_subclass_calls_its_parents_step():
    class Noisy(SGD):
        def step(self, closure=None):
            return super().step(closure)

    calls = []
    pre = register_optimizer_step_pre_hook(lambda *_: calls.append("pre"))
    post = register_optimizer_step_post_hook(lambda *_: calls.append("post"))
    Noisy([parameter()]).step()
    pre.remove()
    post.remove()
    assert calls == ["pre", "post"]


def test_state_dict_hooks():
    p, optimizer = trained()
    calls = []
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("second"))
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("first"), prepend=True)
    handle = optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    state = optimizer.state_dict()
    assert calls == ["first", "second"] and state["extra"] == 1
    handle.remove()
    assert "extra" not in optimizer.state_dict()

    def halve(optimizer, state):
        groups = [{**g, "lr": g["lr"] / 2} for g in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append(o.param_groups[0]["lr"]))
    optimizer.load_state_dict(state)
    assert calls[-1] == 0.05


def test_steps_of_a_users_optimizer_are_hooked_too():
    class Lion(Optimizer):
        def __init__(self, params, lr=0.5):
            super().__init__(params, {"lr": lr})

        @gpunn.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad.sign(), alpha=-group["lr"])

    p = parameter()
    p.grad = gpunn.tensor([3.0, -2.0])
    optimizer = Lion([p])
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.step()
    assert p.tolist() == [0.5, 2.5] and calls == [1]


def test_a_model_trains():
    gpunn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = Adam(model.parameters(), lr=0.05)
    x = gpunn.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = gpunn.tensor([[0.0], [1.0], [1.0], [0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
    assert loss.item() < 0.02
