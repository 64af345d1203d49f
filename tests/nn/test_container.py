"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from collections import OrderedDict

import pytest

import gpunn
from gpunn import nn


def add(T, n):
    class Add(T.nn.Module):
        def forward(self, x):
            return x + n

        def extra_repr(self):
            return f"{n}"

    return Add()


def shown(container):
    return repr(container), len(container), list(container.state_dict())


def test_sequential(same_as_torch, error):
    def scenario(T):
        one, two, three = (add(T, n) for n in (1, 2, 3))
        s = T.nn.Sequential(one, two)
        named = T.nn.Sequential(OrderedDict(a=one, b=two))
        found = [s(1), named(1), shown(s), shown(named), named.a is one, T.nn.Sequential()(7)]
        found += [s[0] is one, s[-1] is two, [m is n for m, n in zip(s, (one, two))]]
        found += [shown(named[1:]), shown(s[::-1]), type(s[:1]).__name__, named["a"] if 0 else 0]
        found += [s.append(three) is s, shown(s), s.extend([one, one]) is s, shown(s)]
        found += [s.insert(0, three) is s, shown(s), s.insert(-1, two) is s, shown(s)]
        found += [s.insert(len(s), one) is s, shown(s), s.pop(0) is three, shown(s)]
        s[0] = three
        del s[-1]
        found += [shown(s), s(0)]
        del s[1:3]
        found += [shown(s), shown(s.pop(slice(0, 1))), shown(s)]
        return found

    same_as_torch(scenario)


def test_sequential_arithmetic(same_as_torch, error):
    def scenario(T):
        s, t = T.nn.Sequential(add(T, 1), add(T, 2)), T.nn.Sequential(add(T, 3))
        found = [shown(s + t), shown(s * 2), shown(2 * t), (s * 2)[0] is (s * 2)[2], shown(s)]
        held = s
        s += t
        found += [shown(s), s is held]
        s *= 2
        found += [shown(s), s is held, s(0)]
        found += [error(lambda: s + [1])[0], error(lambda: s * 0)[0], error(lambda: s * "a")[0]]
        return found

    same_as_torch(scenario)


def test_errors_of_sequential(same_as_torch, error):
    def scenario(T):
        s = T.nn.Sequential(add(T, 1))
        return [
            error(T.nn.Sequential, 3), error(T.nn.Sequential, [add(T, 1)]),
            error(lambda: s[1]), error(lambda: s[-2]), error(lambda: s["a"])[0],
            error(s.insert, 5, add(T, 1)), error(s.insert, 0, 3)[0],
            error(s.__setitem__, 3, add(T, 1)), error(s.__delitem__, 3),
            error(s.append, 3), error(s.pop, 4), error(lambda: s + 3)[0],
        ]  # fmt: skip

    same_as_torch(scenario)


def test_named_sequential_is_numbered_after_a_deletion(same_as_torch):
    def scenario(T):
        s = T.nn.Sequential(OrderedDict(a=add(T, 1), b=add(T, 2), c=add(T, 3)))
        s[1] = add(T, 5)
        first = shown(s)
        del s[0]
        return first, shown(s)

    same_as_torch(scenario)


def test_sequential_extended_by_itself_ends():
    s = nn.Sequential(nn.Identity())
    s.extend(s)
    assert len(s) == 2


def test_subclasses_of_sequential(same_as_torch):
    def scenario(T):
        class Mine(T.nn.Sequential):
            def forward(self, x):
                return super().forward(x) * 10

        m = Mine(add(T, 1), add(T, 2))
        return m(0), type(m[:1]).__name__, m[:1](0), type(m + m).__name__, repr(m)

    same_as_torch(scenario)


def test_module_list(same_as_torch, error):
    def scenario(T):
        one, two, three = (add(T, n) for n in (1, 2, 3))
        m = T.nn.ModuleList([one, two])
        found = [shown(m), m[0] is one, m[-1] is two, list(m) == [one, two], one in m]
        found += [m.append(three) is m, shown(m), m.extend([one]) is m, shown(m)]
        m.insert(1, three)
        found += [shown(m), m.pop(0) is one, shown(m), shown(m[1:]), type(m[:1]).__name__]
        m[0] = one
        del m[-1]
        m += [two, two]
        found += [shown(m), shown(m + [one]), shown(m)]
        del m[::2]
        found += [shown(m), shown(m.pop(slice(0, 1))), shown(m), shown(T.nn.ModuleList())]
        found += [error(lambda: m[7]), error(m.extend, 3), error(m.append, 3), error(m, 1)[0]]
        found += [error(m.__setitem__, 9, one), error(T.nn.ModuleList, [3])]
        found += [[n for n in dir(T.nn.ModuleList([one])) if n.isdigit()]]
        return found

    same_as_torch(scenario)


def test_inserting_into_a_module_list_from_the_end_and_past_it():
    m = nn.ModuleList([nn.Identity(), nn.Identity()])
    m.insert(-1, nn.Flatten())
    assert type(m[1]) is nn.Flatten and len(m) == 3
    with pytest.raises(IndexError, match="Index out of range: 9"):
        m.insert(9, nn.Flatten())


def test_repeated_blocks_are_folded(same_as_torch):
    def scenario(T):
        class Block(T.nn.Module):
            def __init__(self, n):
                super().__init__()
                self.a = add(T, n)
                self.deep = T.nn.ModuleList([add(T, 1) for _ in range(3)])

        blocks = [Block(1), Block(1), Block(2), Block(1), Block(1), Block(1)]
        return [repr(T.nn.ModuleList(blocks)), repr(T.nn.Sequential(T.nn.ModuleList(blocks[:2])))]

    same_as_torch(scenario)


def test_module_dict(same_as_torch, error):
    def scenario(T):
        one, two = add(T, 1), add(T, 2)
        d = T.nn.ModuleDict({"b": one, "a": two})
        found = [shown(d), list(d), list(d.keys()), [m is one for m in d.values()], "a" in d]
        found += [[k for k, _ in d.items()], d["a"] is two, d.b is one, d.pop("b") is one, shown(d)]
        d["c"] = one
        d.update([("z", two), ["y", one]])
        d.update(T.nn.ModuleDict({"w": one}))
        d.update(OrderedDict(v=two))
        found += [shown(d), len(T.nn.ModuleDict())]
        del d["z"]
        found += [shown(d), error(lambda: d["zz"]), error(d.pop, "zz"), error(d, 1)[0]]
        found += [error(d.update, 3), error(d.update, [3]), error(d.update, [("a", one, two)])]
        found += [error(d.__setitem__, "type", one), error(d.__setitem__, "x", 3)]
        found += [error(d.__setitem__, 3, one)]
        d.clear()
        return [*found, shown(d)]

    same_as_torch(scenario)


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


def test_the_deprecated_container():
    with pytest.warns(FutureWarning, match="`nn.Container` is deprecated"):
        m = nn.Container(a=nn.Identity())
    assert list(m._modules) == ["a"]


def test_containers_train_end_to_end():
    model = nn.Sequential(nn.ModuleDict({"x": nn.ParameterList([gpunn.ones(2)])}))
    assert [n for n, _ in model.named_parameters()] == ["0.x.0"]
    (model[0]["x"][0] * 3).sum().backward()
    assert model[0].x[0].grad.tolist() == [3, 3]
