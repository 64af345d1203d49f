"""Peak memory of training steps: resident bytes above what the process held after importing.

Cases: the network of examples/digits.py with batches of 256, and a perceptron of 50 million
parameters under Adam. Linux only (/proc/self/status).
"""

import gc

import compare


def resident(field):
    """VmRSS (now) or VmHWM (the peak) in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"{field} is not in /proc/self/status")


def digits_cnn(T):
    """A few steps of the convolutional network for handwritten digits."""
    nn = T.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    x, y = T.randn(1024, 1, 8, 8), T.randint(0, 10, (1024,))
    train(T, model, x, y, T.nn.CrossEntropyLoss())


def wide_perceptron(T):
    """A few steps of 50 million parameters."""
    nn = T.nn
    model = nn.Sequential(
        nn.Linear(1024, 6144), nn.ReLU(), nn.Linear(6144, 6144), nn.ReLU(), nn.Linear(6144, 1024),
    )  # fmt: skip
    x, y = T.randn(64, 1024), T.randn(64, 1024)
    train(T, model, x, y, T.nn.MSELoss())


def train(T, model, x, y, loss_of, steps=3):
    update = T.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        update.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        update.step()


def cases(T):
    """Each case as a function that trains."""
    return {
        "digits CNN, batch 1024": lambda: digits_cnn(T),
        "50 M perceptron, Adam": lambda: wide_perceptron(T),
    }


def measure(cases, impl, seconds):
    """Peak bytes of each case above the start, each measured in this process, freed in between."""
    package = compare.load(impl)
    warm = package.nn.Conv2d(1, 1, 3)
    warm(package.zeros(1, 1, 4, 4)).sum().backward()  # libraries and thread pools are in place
    found = {}
    for name, run in cases(package).items():
        gc.collect()
        start = resident("VmRSS")
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")  # the peak starts anew
        run()
        found[name] = resident("VmHWM") - start
    return found


if __name__ == "__main__":
    compare.main(cases, unit="MB", scale=1e-6, measure_with=measure)
