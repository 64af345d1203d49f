"""GradScaler against PyTorch's, its errors, and what it says of clipping in the wrong order."""

import copy
import math
import pickle
import warnings

import pytest
from both import refused, same

import gpunn
from gpunn import nn


def setup(T, scale=8.0, **options):
    """A parameter, its optimizer, a scaler."""
    p = T.tensor([1.0, 2.0], requires_grad=True)
    return p, T.optim.SGD([p], lr=0.5), T.amp.GradScaler("cpu", init_scale=scale, **options)


def backward(scaler, p, factor=1.0):
    scaler.scale((p * factor).sum()).backward()


# --- the same as PyTorch's ----------------------------------------------------------------


def test_a_step_is_that_of_unscaled_gradients():
    def program(T):
        p, optimizer, scaler = setup(T)
        loss = scaler.scale((p * p).sum())
        loss.backward()
        before = p.grad.clone()
        returned = scaler.step(optimizer, None)
        scaler.update()
        return [loss, before, p.grad, p, returned is None, scaler.get_scale()]

    same(program)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(bad):
    def program(T):
        p, optimizer, scaler = setup(T)
        backward(scaler, p, bad)
        scaler.step(optimizer)
        scaler.update()
        return [p, scaler.get_scale(), scaler.state_dict()]

    same(lambda T: list(program(T)[:2]) + list(program(T)[2].items()))


def test_the_scale_grows_and_shrinks():
    def program(T):
        p, optimizer, scaler = setup(
            T, 64.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=2
        )
        found = []
        for factor in (1.0, 1.0, 1.0, math.inf, 1.0, 1.0, math.nan, math.nan):
            optimizer.zero_grad()
            backward(scaler, p, factor)
            scaler.step(optimizer)
            scaler.update()
            found.append([scaler.get_scale(), scaler._get_growth_tracker()])
        return found

    same(program)


def test_the_scale_does_not_grow_past_float32():
    def program(T):
        p, optimizer, scaler = setup(T, 2.0**127, growth_interval=1)
        backward(scaler, p, 1e-30)
        scaler.step(optimizer)
        scaler.update()
        return [scaler.get_scale(), scaler._get_growth_tracker()]

    same(program)


def test_a_new_scale_is_taken():
    def program(T):
        p, optimizer, scaler = setup(T)
        found = []
        for new in (4.0, T.tensor(2.0)):
            backward(scaler, p)
            scaler.update(new)
            found.append(scaler.get_scale())
        return found

    same(program)


def test_losses_in_containers():
    def program(T):
        scaler = T.amp.GradScaler("cpu", init_scale=4.0)
        losses = [T.tensor(1.0), (T.tensor(2.0), [T.tensor([3.0]).half()])]
        made = scaler.scale(losses)
        lazy = list(scaler.scale(t for t in (T.tensor(5.0),)))
        return [made[0], made[1][0], made[1][1][0], isinstance(made[1], tuple), *lazy]

    same(program)


def test_unscaled_gradients_are_seen_and_stepped_once():
    def program(T):
        p, optimizer, scaler = setup(T)
        backward(scaler, p)
        scaler.unscale_(optimizer)
        seen = p.grad.clone()
        T.nn.utils.clip_grad_norm_([p], 0.1)
        scaler.step(optimizer)
        scaler.update()
        return [seen, p.grad, p]

    same(program)


def test_two_optimizers_have_states_of_their_own():
    def program(T):
        a, first, scaler = setup(T)
        b = T.tensor([1.0], requires_grad=True)
        second = T.optim.Adam([b], lr=0.1)
        scaler.scale([(a * math.inf).sum(), b.sum()])[0].backward()
        scaler.scale(b.sum()).backward()
        scaler.unscale_(first)
        scaler.step(first)
        scaler.step(second)
        found = [sum(t.item() for t in scaler._found_inf_per_device(o).values())
                 for o in (first, second)]  # fmt: skip
        scaler.update()
        return [a, b, found, scaler.get_scale()]

    same(program)


def test_a_disabled_scaler_only_steps():
    def program(T):
        p = T.tensor([1.0], requires_grad=True)
        optimizer = T.optim.SGD([p], lr=0.5)
        scaler = T.amp.GradScaler("cpu", enabled=False)
        loss = p.sum()
        assert scaler.scale(loss) is loss
        loss.backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scaler.load_state_dict({})
        return [p, scaler.get_scale(), scaler.is_enabled(), scaler.state_dict() == {},
                scaler._get_growth_tracker()]  # fmt: skip

    same(program)


def test_the_step_s_own_arguments_and_result():
    class Custom(gpunn.optim.SGD):
        def step(self, closure=None, *, extra):
            super().step()
            return extra

    p = gpunn.ones(1, requires_grad=True)
    optimizer, scaler = Custom([p], lr=1.0), gpunn.amp.GradScaler("cpu")
    backward(scaler, p)
    assert scaler.step(optimizer, extra=7) == 7
    scaler.update()
    backward(scaler, p, math.inf)
    assert scaler.step(optimizer, extra=7) is None


@pytest.mark.parametrize("unscaled", [False, True])
def test_an_optimizer_that_unscales_by_itself(unscaled):
    def program(T):
        class Own(T.optim.SGD):
            _step_supports_amp_scaling = True

            def step(self, closure=None):
                found.append([self.grad_scale is None or self.grad_scale.item(),
                              self.found_inf.item()])  # fmt: skip

        found = []
        p = T.tensor([1.0], requires_grad=True)
        optimizer, scaler = Own([p], lr=1.0), T.amp.GradScaler("cpu", init_scale=8.0)
        for factor in (1.0, math.inf):
            p.grad = None
            backward(scaler, p, factor)
            if unscaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            found.append([p.grad, hasattr(optimizer, "found_inf")])
            scaler.update()
        return [found, scaler.get_scale()]

    same(program)


def test_a_step_that_takes_the_scaler_gets_it():
    class Own(gpunn.optim.SGD):
        _step_supports_amp_scaling = True

        def step(self, closure=None, grad_scaler=None):
            grad_scaler.unscale_(self)
            return grad_scaler

    p = gpunn.ones(1, requires_grad=True)
    scaler = gpunn.amp.GradScaler("cpu")
    backward(scaler, p)
    with pytest.warns(FutureWarning, match="going to stop passing itself"):
        assert scaler.step(Own([p], lr=1.0)) is scaler


def test_rows_of_a_sparse_gradient():
    def program(T):
        T.manual_seed(0)
        table = T.nn.Embedding(4, 2, sparse=True)
        optimizer = T.optim.SGD(table.parameters(), lr=0.5)
        scaler = T.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(table(T.tensor([1, 1, 3])).sum()).backward()
        scaler.unscale_(optimizer)
        seen = table.weight.grad.to_dense()
        scaler.step(optimizer)
        return [seen, table.weight]

    same(program)


def test_schedulers_know_that_the_optimizer_stepped():
    p, optimizer, scaler = setup(gpunn)
    scheduler = gpunn.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    backward(scaler, p)
    scaler.step(optimizer)
    scheduler.step()
    p, optimizer, scaler = setup(gpunn)
    scheduler = gpunn.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    backward(scaler, p, math.inf)
    scaler.step(optimizer)
    with pytest.warns(UserWarning, match="lr_scheduler.step\\(\\)` before `optimizer.step"):
        scheduler.step()


# --- state --------------------------------------------------------------------------------


def test_state_dict_and_back():
    def program(T):
        p, optimizer, scaler = setup(T, growth_interval=5)
        backward(scaler, p)
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        fresh, used = T.amp.GradScaler("cpu"), setup(T)[2]
        used.scale(T.tensor(1.0))
        found = [list(state), list(state.values())]
        for other in (fresh, used):
            other.load_state_dict(state)
            found.append(list(other.state_dict().values()))
            found.append(other.scale(T.tensor(1.0)))
        return found

    same(program)


def test_accessors():
    def program(T):
        scaler = T.amp.GradScaler("cpu")
        found = [scaler.get_growth_factor(), scaler.get_backoff_factor(),
                 scaler.get_growth_interval(), scaler.get_scale(), scaler.is_enabled()]  # fmt: skip
        scaler.set_growth_factor(4.0)
        scaler.set_backoff_factor(0.1)
        scaler.set_growth_interval(7)
        return [*found, list(scaler.state_dict().values())]

    same(program)


def test_pickled_between_iterations_only():
    p, optimizer, scaler = setup(gpunn)
    backward(scaler, p)
    scaler.step(optimizer)
    with pytest.raises(AssertionError, match="may only be pickled at the beginning"):
        pickle.dumps(scaler)
    scaler.update(32.0)
    for again in (pickle.loads(pickle.dumps(scaler)), copy.deepcopy(scaler)):
        assert again.get_scale() == 32.0 and again.state_dict() == scaler.state_dict()
        assert again.scale(gpunn.tensor(1.0)).item() == 32.0


# --- errors -------------------------------------------------------------------------------


def program_with(then):
    def program(T):
        p, optimizer, scaler = setup(T)
        backward(scaler, p)
        then(T, p, optimizer, scaler)

    return program


def twice(name):
    def then(T, p, optimizer, scaler):
        for _ in range(2):
            getattr(scaler, name)(optimizer)

    return then


def unscale_after_step(T, p, optimizer, scaler):
    scaler.step(optimizer)
    scaler.unscale_(optimizer)


def without_gradients(T, p, optimizer, scaler):
    optimizer.zero_grad()
    scaler.step(optimizer)


def in_float16(T, p, optimizer, scaler):
    p = T.ones(1, dtype=T.float16, requires_grad=True)
    backward(scaler, p)
    scaler.step(T.optim.SGD([p], lr=1.0))


@pytest.mark.parametrize(
    "then, match",
    [
        (twice("unscale_"), "has already been called on this optimizer since the last update"),
        (twice("step"), "has already been called since the last update"),
        (unscale_after_step, "is being called after step"),
        (without_gradients, "No inf checks were recorded for this optimizer"),
        (in_float16, "Attempting to unscale FP16 gradients"),
        (lambda T, p, o, s: s.update(), "No inf checks were recorded prior to update"),
        (lambda T, p, o, s: s.step(o, closure=lambda: 0), "Closure use is not currently supported"),
        (lambda T, p, o, s: s.scale(3.0), "outputs must be a Tensor or an iterable of Tensors"),
        (lambda T, p, o, s: s.update(T.ones(2)), "new_scale should be a float or a 1-element"),
        (lambda T, p, o, s: s.update(p.sum()), "new_scale should be a float or a 1-element"),
        (lambda T, p, o, s: s.load_state_dict({}), "The source state dict is empty"),
    ],
)
def test_what_is_refused(then, match):
    refused(program_with(then), match)


def test_before_the_first_loss():
    for name in ("step", "unscale_", "update"):
        refused(
            lambda T, name=name: getattr(setup(T)[2], name)(*[setup(T)[1]] * (name != "update")),
            f"Attempted {name} but _scale is None",
        )


def test_factors_on_the_wrong_side():
    refused(lambda T: T.amp.GradScaler("cpu", growth_factor=1.0), "growth factor must be > 1.0")
    refused(lambda T: T.amp.GradScaler("cpu", backoff_factor=1.0), "backoff factor must be < 1.0")


def test_without_cuda_it_warns_and_scales_nothing(monkeypatch):
    monkeypatch.setattr(gpunn.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="CUDA is not available"):
        scaler = gpunn.amp.GradScaler()
    assert not scaler.is_enabled()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_old_names_warn(kind, emulated):
    with pytest.warns(FutureWarning, match=rf"gpunn.amp.GradScaler\('{kind}', args...\)"):
        scaler = getattr(gpunn, kind).amp.GradScaler(init_scale=4.0)
    assert scaler.get_scale() == 4.0 and scaler._device == kind


# --- clipping in the wrong order ----------------------------------------------------------

CLIPS = [
    lambda p: nn.utils.clip_grad_norm_([p], 1.0),
    lambda p: nn.utils.clip_grad_norm_((q for q in [p]), 1.0),
    lambda p: nn.utils.clip_grad_value_(p, 1.0),
]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", ["step", "unscale_"])
def test_clipping_gradients_that_are_still_scaled_warns(clip, name):
    p, optimizer, scaler = setup(gpunn)
    backward(scaler, p)
    clip(p)
    with pytest.warns(UserWarning, match=r"call scaler.unscale_\(optimizer\) before clip_grad"):
        getattr(scaler, name)(optimizer)


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_in_the_right_order_says_nothing(clip):
    p, optimizer, scaler = setup(gpunn)
    other = gpunn.ones(2, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.zero_grad()
            backward(scaler, p)
            other.sum().backward()
            clip(other)  # of a model without a scaler
            scaler.unscale_(optimizer)
            clip(p)
            scaler.step(optimizer)
            clip(p)
            scaler.update()
            clip(p)


# --- on a GPU -----------------------------------------------------------------------------


def test_on_cuda(emulated):
    p = gpunn.ones(3, device="cuda", requires_grad=True)
    optimizer, scaler = gpunn.optim.SGD([p], lr=0.5), gpunn.amp.GradScaler(init_scale=16.0)
    for factor, scale, value in ((1.0, 16.0, 0.5), (math.inf, 8.0, 0.5), (1.0, 8.0, 0.0)):
        optimizer.zero_grad()
        backward(scaler, p, factor)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale and scaler._scale.device.type == "cuda"
        assert p.tolist() == [value] * 3


@pytest.mark.parametrize("bad", [1.0, math.inf, math.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_all_gradients_on_a_gpu_are_looked_at_together(bad, dtype, emulated):
    from emulated import Function

    params = [gpunn.ones(n, device="cuda", requires_grad=True) for n in (3, 5000, 7, 1)]
    params = [p.detach().to(getattr(gpunn, dtype)).requires_grad_() for p in params]
    optimizer, scaler = gpunn.optim.SGD(params, lr=0.0), gpunn.amp.GradScaler(init_scale=4.0)
    scaler.scale(sum((p * k).sum() for p, k in zip(params, (1, 2, bad, 4), strict=True))).backward()
    start = len(Function.launches)
    scaler.unscale_(optimizer)
    assert Function.launches[start:].count("norm_parts") == 1
    assert sum(scaler._found_inf_per_device(optimizer).values()).item() == (bad != 1.0)
    assert params[1].grad[4999].item() == 2.0 and params[3].grad.item() == 4.0


def test_an_error_leaves_all_gradients_as_they_were():
    p, q = gpunn.ones(2, requires_grad=True), gpunn.ones(2, dtype=gpunn.half, requires_grad=True)
    scaler = gpunn.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(p.sum() + q.float().sum()).backward()
    with pytest.raises(ValueError, match="Attempting to unscale FP16"):
        scaler.unscale_(gpunn.optim.SGD([p, q], lr=0.1))
    assert p.grad.tolist() == [4.0, 4.0]


def test_optimizers_on_several_devices(emulated):
    p, q = gpunn.ones(2, requires_grad=True), gpunn.ones(2, device="cuda", requires_grad=True)
    r = gpunn.ones(2, device="cpu:1", requires_grad=True)
    optimizer, scaler = gpunn.optim.SGD([p, q, r], lr=0.5), gpunn.amp.GradScaler("cpu")
    for loss in scaler.scale([p.sum(), q.sum(), (r * math.inf).sum()]):
        loss.backward()
    scaler.step(optimizer)
    found = scaler._found_inf_per_device(optimizer)
    assert {str(d): t.item() for d, t in found.items()} == {"cpu": 0, "cuda:0": 0, "cpu:1": 1}
    assert p.tolist() == q.tolist() == [1.0, 1.0]
    scaler.update()
    assert scaler.get_scale() == 2.0**15
