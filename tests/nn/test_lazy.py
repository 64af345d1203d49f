"""Lazy modules: shapes at the first call, and states before and after it."""

import copy
import pickle

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.lazy import LazyModuleMixin
from gpunn.nn.parameter import is_lazy


def lazy_scale(T):
    class Scale(T.nn.Module):
        def __init__(self, n):
            super().__init__()
            self.factor = T.nn.Parameter(T.ones(n))
            self.register_buffer("mean", T.zeros(n))

        def forward(self, x):
            return x * self.factor + self.mean

    class LazyScale(T.nn.modules.lazy.LazyModuleMixin, Scale):
        cls_to_become = Scale

        def __init__(self):
            super().__init__(0)
            self.factor = T.nn.UninitializedParameter()
            self.mean = T.nn.UninitializedBuffer()

        def initialize_parameters(self, x):
            if self.has_uninitialized_params():
                with T.no_grad():
                    self.factor.materialize((x.shape[-1],))
                    self.factor.fill_(2)
                    self.mean.materialize((x.shape[-1],))
                    self.mean.fill_(1)

    return Scale, LazyScale


def test_the_first_call_shapes_and_changes_the_class(same_as_torch):
    def scenario(T):
        m = lazy_scale(T)[1]()
        before = type(m).__name__, m.has_uninitialized_params(), len(list(m.parameters()))
        y = m(T.ones(4, 3))
        after = type(m).__name__, tuple(m.factor.shape), y.tolist()
        left = len(m._forward_pre_hooks), len(m._load_state_dict_pre_hooks)
        return before, after, left, hasattr(m, "_initialize_hook"), m(T.ones(1, 3)).tolist()

    same_as_torch(scenario)


def test_states(same_as_torch):
    def scenario(T):
        Scale, LazyScale = lazy_scale(T)
        empty, full = LazyScale(), LazyScale()
        full(T.ones(1, 3))
        found = [{k: repr(v) for k, v in empty.state_dict().items()}]
        fresh = LazyScale()
        found.append(repr(fresh.load_state_dict(empty.state_dict())))
        found.append(fresh.has_uninitialized_params())
        fresh.load_state_dict(full.state_dict())
        found += [fresh.has_uninitialized_params(), type(fresh).__name__, fresh.factor.tolist()]
        fresh(T.ones(2, 3))
        return [*found, type(fresh).__name__, fresh.factor.tolist()]

    same_as_torch(scenario)


def test_an_uninitialized_state_does_not_load_into_an_initialized_module(same_as_torch, error):
    def scenario(T):
        Scale, LazyScale = lazy_scale(T)
        return error(Scale(3).load_state_dict, LazyScale().state_dict())

    same_as_torch(scenario)


def test_incomplete_modules(same_as_torch, error):
    def scenario(T):
        class Forgetful(T.nn.modules.lazy.LazyModuleMixin, T.nn.Module):
            def __init__(self):
                super().__init__()
                self.w = T.nn.UninitializedParameter()

        class Half(Forgetful):
            def initialize_parameters(self, *args):
                pass

        return error(Forgetful(), 1), error(Half(), 1), error(
            Half()._replicate_for_data_parallel
        )

    same_as_torch(scenario)


def test_conversion_before_the_first_call():
    m = lazy_scale(gpunn)[1]().double()
    assert m(gpunn.ones(2, 3, dtype=gpunn.float64)).dtype is gpunn.float64
    assert m.factor.dtype is gpunn.float64


class LazyWeight(LazyModuleMixin, nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.UninitializedParameter()

    def initialize_parameters(self, x):
        if self.has_uninitialized_params():
            self.weight.materialize(x.shape)
            nn.init.ones_(self.weight)

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_initialize_themselves(duplicate):
    m = LazyWeight()
    copied = duplicate(m)
    copied(gpunn.ones(3))
    assert is_lazy(m.weight) and not is_lazy(copied.weight)
    assert not copied._forward_pre_hooks
    m(gpunn.ones(2))
    assert m.weight.shape == (2,)


def test_gradients_reach_a_materialized_parameter():
    m = LazyWeight()
    m(gpunn.ones(2)).sum().backward()
    assert m.weight.grad.tolist() == [1, 1]
