"""Sequential, ModuleList, ModuleDict."""

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


def test_the_deprecated_container():
    with pytest.warns(FutureWarning, match="`nn.Container` is deprecated"):
        m = nn.Container(a=nn.Identity())
    assert list(m._modules) == ["a"]


def test_containers_train_end_to_end():
    model = nn.Sequential(nn.ModuleDict({"x": nn.ParameterList([gpunn.ones(2)])}))
    assert [n for n, _ in model.named_parameters()] == ["0.x.0"]
    (model[0]["x"][0] * 3).sum().backward()
    assert model[0].x[0].grad.tolist() == [3, 3]
