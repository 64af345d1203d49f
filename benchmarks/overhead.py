"""What one small operation costs: Python, recording, dispatch. See compare.py for how it is run."""

import compare


def cases(T):
    """Operations on a few numbers, and one training step of a 2-8-1 perceptron."""
    x = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = T.tensor([4.0, 5.0, 6.0])
    layer = T.nn.Linear(8, 8)
    batch = T.ones(4, 8)

    def autocast(f, x):
        with T.autocast("cpu"):
            return f(x)

    return {
        "add, recorded": lambda: x + y,
        "add": lambda: y + y,
        "mul, recorded": lambda: x * y,
        "mul by a number, recorded": lambda: x * 2.0,
        "exp, recorded": lambda: x.exp(),
        "sum, recorded": lambda: x.sum(),
        "matmul, recorded": lambda: x @ y,
        "index": lambda: y[0],
        "reshape": lambda: y.reshape(3, 1),
        "Linear": lambda: layer(batch),
        "Linear under autocast": lambda: autocast(layer, batch),
        "training step 2-8-1, SGD": training_step(T, T.optim.SGD, lr=0.1),
        "training step 2-8-1, Adam": training_step(T, T.optim.Adam, lr=0.01),
    }


def training_step(T, optimizer, **options):
    """Forward, backward and update of a tiny network."""
    T.manual_seed(0)
    model = T.nn.Sequential(T.nn.Linear(2, 8), T.nn.Tanh(), T.nn.Linear(8, 1))
    update = optimizer(model.parameters(), **options)
    x, y = T.randn(4, 2), T.randn(4, 1)
    loss_of = T.nn.MSELoss()

    def step():
        update.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        update.step()

    return step


if __name__ == "__main__":
    compare.main(cases)
