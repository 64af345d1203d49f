"""state_dict and load_state_dict."""

from collections import OrderedDict

import numpy as np
import pytest

import gpunn


def net(T):
    class Norm(T.nn.Module):
        _version = 2

        def __init__(self, n):
            super().__init__()
            self.weight = T.nn.Parameter(T.ones(n))
            self.register_parameter("bias", None)
            self.register_buffer("mean", T.zeros(n))
            self.register_buffer("cache", T.zeros(n), persistent=False)
            self.register_buffer("count", T.tensor(0))

    class Net(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = T.nn.Parameter(T.ones(1))
            self.layers = T.nn.ModuleList([Norm(2), Norm(3)])
            self.none = None

    return Net()


def test_keys_values_and_metadata(same_as_torch):
    def scenario(T):
        m = net(T)
        state = m.state_dict()
        return [
            type(state).__name__,
            [(k, v.tolist(), v.requires_grad) for k, v in state.items()],
            dict(state._metadata),
            list(m.state_dict(prefix="p.")),
            [v.requires_grad for v in m.state_dict(keep_vars=True).values()],
            type(m.state_dict(destination={})).__name__,
        ]

    same_as_torch(scenario)


def test_the_state_shares_memory():
    m = net(gpunn)
    m.state_dict()["scale"].fill_(9)
    assert m.scale.item() == 9
    assert m.state_dict(keep_vars=True)["scale"] is m.scale


def test_positional_arguments_warn():
    m = net(gpunn)
    mine = OrderedDict()
    with pytest.warns(FutureWarning, match="Positional args are being deprecated"):
        assert m.state_dict(mine, "a.", True) is mine
    assert mine["a.scale"] is m.scale


def test_loading_copies(same_as_torch):
    def scenario(T):
        m, other = net(T), net(T)
        other.scale.data.fill_(4)
        held = m.scale
        returned = m.load_state_dict(other.state_dict())
        same = m.scale is held and m.scale is not other.scale
        return repr(returned), str(returned), same, m.scale.item(), m.scale.requires_grad

    same_as_torch(scenario)


def test_loading_casts_to_the_own_dtype(same_as_torch):
    def scenario(T):
        m = net(T)
        m.load_state_dict({**m.state_dict(), "scale": T.ones(1, dtype=T.float64) * 3})
        return str(m.scale.dtype), m.scale.tolist()

    same_as_torch(scenario)


def test_missing_and_unexpected_keys(same_as_torch, error):
    def scenario(T):
        m = net(T)
        state = m.state_dict()
        del state["scale"], state["layers.0.mean"]
        state["more"] = state["layers.9.weight"] = state["layers.0.x"] = T.ones(1)
        state["layers.0.bias"] = state["layers.0.cache"] = T.ones(2)
        keys = m.load_state_dict(state, strict=False)
        return [
            repr(keys), keys.missing_keys, keys.unexpected_keys, keys[0] is keys.missing_keys,
            error(m.load_state_dict, state),
        ]  # fmt: skip

    same_as_torch(scenario)


def test_what_does_not_fit(same_as_torch, error):
    def scenario(T):
        m = net(T)
        state = m.state_dict()
        state["layers.0.weight"] = T.ones(3)
        state["layers.1.mean"] = T.ones(3, 1)
        found = [error(m.load_state_dict, state), error(m.load_state_dict, state, strict=False)]
        state = {**m.state_dict(), "scale": [1.0]}
        found += [error(m.load_state_dict, state), error(m.load_state_dict, [1, 2])]
        return found

    same_as_torch(scenario)


def test_arrays_are_not_tensors():
    m = net(gpunn)
    with pytest.raises(RuntimeError, match="Tensor-like object from checkpoint but received <cl"):
        m.load_state_dict({**m.state_dict(), "scale": np.ones(1)})


def test_scalars_of_old_files(same_as_torch):
    def scenario(T):
        m = net(T)
        m.load_state_dict({**m.state_dict(), "layers.0.count": T.tensor([7])})
        return m.layers[0].count.item()

    same_as_torch(scenario)


def test_assign(same_as_torch):
    def scenario(T):
        m, other = net(T), net(T)
        m.scale.requires_grad_(False)
        held = m.scale
        state = other.double().state_dict()
        state["layers.0.weight"] = T.nn.Parameter(T.ones(2) * 5, requires_grad=False)
        given = state["layers.0.weight"]
        m.load_state_dict(state, assign=True)
        return [
            m.scale is held,
            m.layers[0].weight is given,
            m.layers[0].mean is state["layers.0.mean"],
            [(n, str(p.dtype), p.requires_grad) for n, p in m.named_parameters()],
            list(m._parameters),
        ]

    same_as_torch(scenario)


def test_assigning_does_not_mark_the_state():
    m = net(gpunn)
    state = net(gpunn).state_dict()
    m.load_state_dict(state, assign=True)
    held = m.scale
    m.load_state_dict(state)
    assert m.scale is held


def test_the_given_state_is_not_changed():
    m = net(gpunn)

    def drop(module, state, *rest):
        state.clear()

    m.register_load_state_dict_pre_hook(drop)
    state = m.state_dict()
    m.load_state_dict(state, strict=False)
    assert len(state) == 7


def test_extra_state(same_as_torch, error):
    def scenario(T):
        class Extra(T.nn.Module):
            def get_extra_state(self):
                return {"epoch": 3}

            def set_extra_state(self, state):
                self.got = state

        m = T.nn.Sequential(Extra())
        state = dict(m.state_dict())
        m.load_state_dict(state)
        plain = T.nn.Sequential(T.nn.Identity())
        return [
            state, m[0].got,
            error(m.load_state_dict, {}),
            error(plain.load_state_dict, state),
            error(plain[0].get_extra_state)[0], error(plain[0].set_extra_state, 1)[0],
        ]  # fmt: skip

    same_as_torch(scenario)


def test_versions_and_overrides(same_as_torch):
    """A module whose keys changed translates those of its first version."""

    def scenario(T):
        class Renamed(T.nn.Module):
            _version = 2

            def __init__(self):
                super().__init__()
                self.new = T.nn.Parameter(T.zeros(1))

            def _load_from_state_dict(self, state, prefix, metadata, *rest):
                if metadata.get("version", 1) < 2:
                    state[prefix + "new"] = state.pop(prefix + "old")
                super()._load_from_state_dict(state, prefix, metadata, *rest)

            def _save_to_state_dict(self, destination, prefix, keep_vars):
                super()._save_to_state_dict(destination, prefix, keep_vars)
                destination[prefix + "saved_by"] = "me"

        m = T.nn.Sequential(Renamed())
        m.load_state_dict({"0.old": T.ones(1) * 8})
        first = m[0].new.item()
        state = m.state_dict()
        del state["0.saved_by"]
        m.load_state_dict(state)
        return first, dict(state._metadata), list(m.state_dict())

    same_as_torch(scenario)


def test_shared_parameters_are_saved_under_each_name(same_as_torch):
    def scenario(T):
        m = net(T)
        m.tied = m.scale
        return list(m.state_dict()), [n for n, _ in m.named_parameters()]

    same_as_torch(scenario)


def test_a_state_of_pytorch_loads():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = net(torch)
    theirs.scale.data.fill_(3)
    state = {k: gpunn.tensor(v.numpy()) for k, v in theirs.state_dict().items()}
    m = net(gpunn)
    assert repr(m.load_state_dict(state)) == "<All keys matched successfully>"
    assert m.scale.item() == 3
