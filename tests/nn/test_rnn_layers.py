"""Recurrent networks as functions: both forms against PyTorch's."""

import numpy as np
import pytest
from both import refused, same

import gpunn

rng = np.random.default_rng(0)
X, H = rng.normal(size=(5, 4, 3)), rng.normal(size=(4, 4, 6))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_functions(name):
    """Both forms, by position and by name."""
    rows = {"lstm": 24, "gru": 18}.get(name, 6)
    weights = [rng.normal(size=s) for s in ((rows, 3), (rows, 6), rows, rows)]

    def program(T):
        params = [T.from_numpy(w.copy()) for w in weights]
        h = T.from_numpy(H[:1].copy())
        hx, x = ([h, h] if name == "lstm" else h), T.from_numpy(X.copy())
        f, sizes = getattr(T, name), T.tensor([4, 4, 4, 4, 4])
        options = {"num_layers": 1, "dropout": 0.0, "train": True, "bidirectional": False}
        return [
            *f(x, hx, params, True, 1, 0.0, True, False, False),
            *f(x, hx, params[:2], False, 1, 0.0, True, False, False),
            *f(x.transpose(0, 1), hx, params, True, **options, batch_first=True),
            *f(x.reshape(20, 3), sizes, hx, params, True, 1, 0.0, True, False),
            *f(data=x.reshape(20, 3), batch_sizes=sizes, hx=hx, params=params, has_biases=True,
               **options),
        ]  # fmt: skip

    same(program)


@pytest.mark.parametrize("call, words", [
    (lambda T, o: T.lstm(o(2, 3, 4), [o(1, 3, 5)], [o(5, 4)], False, 1, 0.0, False, False, False),
     "lstm expects two hidden states"),
    (lambda T, o: T.gru(o(2, 3, 4), o(1, 3, 5), [o(15, 4)], False, 1, 0.0, False, False, False),
     "got an incorrect number of RNN parameters"),
])  # fmt: skip
def test_errors_are_pytorchs(call, words):
    refused(lambda T: call(T, T.ones), words)


def test_batch_sizes_must_fit():
    w, x = gpunn.ones(5, 5), gpunn.ones(3, 5)
    for sizes in ([1, 2], [2, 2], []):
        with pytest.raises(RuntimeError, match="must not rise and must add up to the 3 rows"):
            gpunn.rnn_tanh(x, gpunn.tensor(sizes), gpunn.ones(1, 2, 5), [w, w], False, 1, 0.0,
                           False, False)  # fmt: skip
