"""One training step of small networks: forward, backward, update. compare.py runs it."""

import compare


def cases(T):
    nn = T.nn
    T.manual_seed(0)
    digits = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    mlp = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    letters = nn.Sequential(nn.Embedding(96, 64), Channels(T), nn.Conv1d(64, 128, 5, padding=2),
                            nn.Tanh(), nn.Conv1d(128, 96, 1))  # fmt: skip
    return {
        "digits CNN, batch 64, SGD": step(
            T, digits, T.randn(64, 1, 8, 8), T.randint(0, 10, (64,)), T.optim.SGD
        ),
        "MLP 784-256-10, batch 128, Adam": step(
            T, mlp, T.randn(128, 784), T.randint(0, 10, (128,)), T.optim.Adam
        ),
        "letters: embedding, conv1d, Adam": step(
            T, letters, T.randint(0, 96, (16, 128)), T.randint(0, 96, (16, 128)), T.optim.Adam
        ),
    }


def Channels(T):
    """A module that turns (N, L, C) into (N, C, L)."""

    class Turn(T.nn.Module):
        def forward(self, x):
            return x.transpose(1, 2)

    return Turn()


def step(T, model, x, y, optimizer):
    update = optimizer(model.parameters(), lr=1e-3)
    loss_of = T.nn.CrossEntropyLoss()

    def train():
        update.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        update.step()

    return train


if __name__ == "__main__":
    compare.main(cases, unit="ms", scale=1e3, seconds=1.0)
