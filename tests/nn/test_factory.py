"""factory_kwargs: what PyTorch's gives and refuses."""

import pytest
from both import refused, same

GIVEN = [
    None,
    {},
    {"device": "cpu"},
    {"dtype": 1, "memory_format": 2},
    {"device": None, "factory_kwargs": {"dtype": 3}},
]


@pytest.mark.parametrize("given", GIVEN)
def test_given(given):
    same(lambda T: sorted(T.nn.factory_kwargs(given).items()))


def test_the_arguments_stay_as_they_are():
    def program(T):
        inner = {"dtype": 3}
        given = {"device": "cpu", "factory_kwargs": inner}
        return [T.nn.factory_kwargs(given) is not inner, len(inner), len(given)]

    same(program)


def test_refused():
    refused(lambda T: T.nn.factory_kwargs({"bias": True}), "unexpected kwargs {'bias'}")
    refused(
        lambda T: T.nn.factory_kwargs({"dtype": 1, "factory_kwargs": {"dtype": 1}}),
        r"dtype specified twice, in \*\*kwargs and in factory_kwargs",
    )
