"""Lists and dictionaries of parameters behave as PyTorch's."""

from collections import OrderedDict

import pytest

import gpunn
from gpunn import nn


def shown(container):
    return repr(container), len(container), list(container.state_dict())


def test_parameter_list(same_as_torch, error):
    def scenario(T):
        p = T.nn.Parameter(T.ones(2))
        m = T.nn.ParameterList([p, T.ones(1, 3), "text", T.ones((), dtype=T.int64) * 0.5])
        found = [shown(m), m[0] is p, type(m[1]).__name__, m[2], m[-1].tolist()]
        found += [[n for n, _ in m.named_parameters()], [type(v).__name__ for v in m]]
        found += [m.append(T.zeros(1)) is m, m.extend([p, 5]) is m, shown(m)]
        m += [T.ones(2)]
        m[0] = T.zeros(4)
        m[2] = p
        found += [shown(m), shown(m[1:3]), type(m[1:3]).__name__, m[1:3][1] is p]
        found += [error(lambda: m[99]), error(m.extend, 3), error(m.extend, T.ones(2)), error(m, 1)]
        found += [error(m.__setitem__, 99, p), shown(T.nn.ParameterList())]
        found += [[n for n in dir(m) if n.isdigit()]]
        m.named = T.nn.Parameter(T.ones(1))
        return [*found, len(m), [n for n, _ in m.named_parameters()]]

    same_as_torch(scenario)


def test_parameter_dict(same_as_torch, error):
    def scenario(T):
        p = T.nn.Parameter(T.ones(2))
        d = T.nn.ParameterDict({"b": p, "a": T.ones(1, 3), "c": "text"})
        found = [shown(d), list(d), d["b"] is p, type(d["a"]).__name__, d["c"], "a" in d]
        found += [list(d.keys()), [k for k, _ in d.items()], len(list(d.values())), d.get("zz")]
        found += [d.get("zz", 3), d.get("b") is p, d.setdefault("d") is None, list(reversed(d))]
        found += [d.setdefault("e", T.ones(1)).tolist(), d.setdefault("b", 3) is p]
        found += [[n for n, _ in d.named_parameters()], d.pop("b") is p, shown(d)]
        found += [d.popitem()[0], list(d)]
        d.update([("z", T.ones(1)), ["y", p]])
        d.update(OrderedDict(x=1, w=2))
        d.update({"n": 1, "m": 2})
        d.update(T.nn.ParameterDict(OrderedDict(q=1, o=2)))
        found += [list(d), list(d.copy()), d.copy()["y"] is p, type(d.copy()).__name__]
        found += [list(d.fromkeys(["s", "r"])), d.fromkeys(["s"], 3)["s"]]
        found += [list(d | T.nn.ParameterDict({"new": p})), list(d)]
        held = d
        d |= T.nn.ParameterDict({"newer": p})
        found += [list(d), d is held]
        del d["y"]
        found += [shown(d), error(lambda: d["zz"]), error(d.__delitem__, "zz"), error(d, 1)]
        found += [error(d.update, 3), error(d.update, [3]), error(d.update, [("a", 1, 2)])]
        found += [error(lambda: d[3])[0], error(d.pop, "zz")[0]]
        d.clear()
        return [*found, shown(d), error(d.popitem)]

    same_as_torch(scenario)


def test_a_refused_key_leaves_the_dictionary_as_it_was():
    d = nn.ParameterDict()
    with pytest.raises(TypeError, match="not a string"):
        d[3] = gpunn.ones(1)
    with pytest.raises(KeyError, match="contain"):
        d["a.b"] = gpunn.ones(1)
    assert list(d) == []


def test_parameters_on_another_device_show_it_only_for_cuda():
    assert "cpu" not in repr(nn.ParameterList([gpunn.ones(1, device="cpu:1")]))
