"""Training scripts as users write them, run with `T` = gpunn and with `T` = PyTorch.

Each takes the library and a folder, and returns the numbers to compare: the losses of its steps
under "losses", which have to fall, and whatever else the script would look at.
"""

import copy
import importlib
import math
import random

import numpy as np
import pytest

import gpunn


def two_moons(T, n=64):
    """Points of two classes that no line separates, from NumPy, so that both sides get the same."""
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, math.pi, n)
    y = np.arange(n) % 2
    x = np.stack([np.cos(angle) * (1 - 2 * y) + y, np.sin(angle) * (1 - 2 * y) + 0.5 * y], 1)
    points = x + 0.1 * rng.standard_normal((n, 2))
    return T.tensor(points, dtype=T.float32), T.from_numpy(y)


def mlp_regression(T, folder):
    model = T.nn.Sequential(T.nn.Linear(1, 32), T.nn.Tanh(), T.nn.Linear(32, 1))
    x = T.linspace(-1, 1, 40).unsqueeze(1)
    y = x.pow(2) + 0.1 * T.rand(40, 1)
    optimizer = T.optim.Adam(model.parameters(), lr=1e-2)
    criterion = T.nn.MSELoss()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with T.no_grad():
        predicted = model(x).squeeze(-1)
    return {"losses": losses, "predicted": predicted, "requires_grad": predicted.requires_grad}


def cnn_classifier(T, folder):
    nn, F = T.nn, T.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
            self.bn = nn.BatchNorm2d(8)
            self.pool = nn.MaxPool2d(2)
            self.conv2 = nn.Conv2d(8, 8, 3, stride=2)
            self.drop = nn.Dropout(0.2)
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            x = self.pool(F.relu(self.bn(self.conv1(x))))
            x = F.relu(self.conv2(x))
            return self.fc(self.drop(x.view(x.size(0), -1)))

    labels = T.arange(48) % 4
    images = T.randn(48, 1, 8, 8) * 0.3
    for i, k in enumerate(labels.tolist()):
        images[i, 0, 2 * k: 2 * k + 2] += 1.5
    data = T.utils.data.TensorDataset(images, labels)
    loader = T.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    model = Net()
    optimizer = T.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = T.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    losses, rates = [], []
    for _ in range(6):
        model.train()
        running = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            running += loss.item() * inputs.size(0)
        scheduler.step()
        losses.append(running / len(data))
        rates.append(scheduler.get_last_lr()[0])
    model.eval()
    correct = 0
    with T.no_grad():
        for inputs, targets in loader:
            _, predicted = T.max(model(inputs), 1)
            correct += (predicted == targets).sum().item()
    return {"losses": losses, "rates": rates, "correct": correct, "mean": model.bn.running_mean}


def autoencoder(T, folder):
    nn = T.nn
    encoder = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
    decoder = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid())
    parameters = list(encoder.parameters()) + list(decoder.parameters())
    optimizer = T.optim.RMSprop(parameters, lr=1e-2)
    x = (T.rand(32, 16) > 0.5).float()
    losses = []
    for _ in range(20):
        noisy = (x + 0.1 * T.rand_like(x)).clamp(0, 1)
        loss = nn.functional.binary_cross_entropy(decoder(encoder(noisy)), x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "var": encoder[1].running_var,
            "batches": encoder[1].num_batches_tracked}


def text_classifier(T, folder):
    nn = T.nn

    class TextClassifier(nn.Module):
        def __init__(self, words, dim, classes):
            super().__init__()
            self.embedding = nn.EmbeddingBag(words, dim, mode="mean")
            self.fc = nn.Linear(dim, classes)
            self.init_weights()

        def init_weights(self):
            self.embedding.weight.data.uniform_(-0.5, 0.5)
            self.fc.weight.data.uniform_(-0.5, 0.5)
            self.fc.bias.data.zero_()

        def forward(self, text, offsets):
            return self.fc(self.embedding(text, offsets))

    def collate(batch):
        labels, texts = zip(*batch)
        lengths = [0] + [len(t) for t in texts]
        return (T.tensor(labels, dtype=T.int64), T.cat([T.tensor(t) for t in texts]),
                T.tensor(lengths[:-1]).cumsum(dim=0))

    rows = random.Random(1)
    data = [(k % 2, [rows.randrange(10) + 10 * (k % 2) for _ in range(1 + k % 5)])
            for k in range(30)]
    loader = T.utils.data.DataLoader(data, batch_size=8, shuffle=True, collate_fn=collate)
    model = TextClassifier(20, 8, 2)
    optimizer = T.optim.SGD(model.parameters(), lr=2.0)
    losses = []
    for _ in range(6):
        for label, text, offsets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(text, offsets), label)
            loss.backward()
            T.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
    return {"losses": losses}


def gan(T, folder):
    nn = T.nn
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    adam_g = T.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_d = T.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    losses, fooled = [], []
    for _ in range(15):
        real = T.rand(16, 2) + 2
        fake = generator(T.rand(16, 4))
        adam_d.zero_grad()
        loss_d = (criterion(critic(real), T.ones(16, 1))
                  + criterion(critic(fake.detach()), T.zeros(16, 1)))
        loss_d.backward()
        adam_d.step()
        adam_g.zero_grad()
        loss_g = criterion(critic(fake), T.full((16, 1), 1.0))
        loss_g.backward()
        adam_g.step()
        losses.append(loss_d.item())
        fooled.append(loss_g.item())
    return {"losses": losses, "fooled": fooled}


def gradient_penalty(T, folder):
    critic = T.nn.Sequential(T.nn.Linear(3, 16), T.nn.Tanh(), T.nn.Linear(16, 1))
    optimizer = T.optim.Adam(critic.parameters(), lr=1e-2)
    real, fake = T.rand(12, 3) + 1, T.rand(12, 3)
    losses = []
    for _ in range(12):
        alpha = T.rand(12, 1)
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        score = critic(mixed)
        slope = T.autograd.grad(outputs=score, inputs=mixed, grad_outputs=T.ones_like(score),
                                create_graph=True, retain_graph=True, only_inputs=True)[0]
        penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "slope": slope}


def accumulation_and_clipping(T, folder):
    x, y = two_moons(T)
    model = T.nn.Sequential(T.nn.Linear(2, 16), T.nn.ReLU(), T.nn.Linear(16, 2))
    optimizer = T.optim.AdamW(model.parameters(), lr=5e-2, weight_decay=1e-2)
    losses, norms = [], []
    for _ in range(6):
        optimizer.zero_grad()
        for i, (a, b) in enumerate(zip(x.split(16), y.chunk(4))):
            loss = T.nn.functional.cross_entropy(model(a), b) / 2
            loss.backward()
            if (i + 1) % 2 == 0:
                norms.append(T.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.2))
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    return {"losses": losses, "norms": T.stack(norms)}


def custom_function(T, folder):
    class Cubic(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return 0.5 * (5 * x ** 3 - 3 * x)

        @staticmethod
        def backward(ctx, grad_output):
            (x,) = ctx.saved_tensors
            return grad_output * 1.5 * (5 * x ** 2 - 1)

    x = T.linspace(-math.pi, math.pi, 200)
    y = T.sin(x)
    a, b, c, d = (T.full((), v, requires_grad=True) for v in (0.0, -1.0, 0.0, 0.3))
    losses = []
    for _ in range(20):
        loss = (a + b * Cubic.apply(c + d * x) - y).pow(2).sum()
        losses.append(loss.item())
        loss.backward()
        with T.no_grad():
            for p in (a, b, c, d):
                p -= 5e-6 * p.grad
                p.grad = None
    return {"losses": losses, "weights": T.stack([a, b, c, d])}


def buffers_and_hooks(T, folder):
    class Scaled(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = T.nn.Linear(3, 3)
            self.register_buffer("average", T.zeros(3))
            self.register_buffer("steps", T.tensor(0), persistent=False)
            self.scale = T.nn.Parameter(T.ones(3))

        def forward(self, x):
            out = self.layer(x) * self.scale
            if self.training:
                self.average.mul_(0.9).add_(out.detach().mean(0), alpha=0.1)
                self.steps += 1
            return out - self.average

    model, seen, slopes = Scaled(), {}, []
    handle = model.layer.register_forward_hook(lambda m, i, o: seen.update(out=o.detach().clone()))
    model.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    model.layer.register_full_backward_hook(lambda m, gi, go: slopes.append(go[0].norm()))
    model.scale.register_hook(lambda g: g.clamp(-0.1, 0.1))
    optimizer = T.optim.SGD(model.parameters(), lr=0.1)
    x, losses = T.rand(10, 3, requires_grad=True), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (model(x) - 1).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    handle.remove()
    return {"losses": losses, "average": model.average, "steps": model.steps, "out": seen["out"],
            "slopes": T.stack(slopes), "keys": list(model.state_dict()),
            "names": [n for n, _ in model.named_buffers()]}


def lbfgs_closure(T, folder):
    x, y = two_moons(T)
    model = T.nn.Sequential(T.nn.Linear(2, 8), T.nn.Tanh(), T.nn.Linear(8, 1)).double()
    optimizer = T.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    losses = []

    def closure():
        optimizer.zero_grad()
        out = model(x.double()).flatten()
        loss = T.nn.functional.binary_cross_entropy_with_logits(out, y.double())
        loss.backward()
        return loss

    for _ in range(4):
        losses.append(optimizer.step(closure).item())
    return {"losses": losses}


def groups_and_freezing(T, folder):
    x, y = two_moons(T)
    model = T.nn.Sequential(T.nn.Linear(2, 16), T.nn.ReLU(), T.nn.Linear(16, 8), T.nn.ReLU(),
                            T.nn.Linear(8, 2))
    for p in model[0].parameters():
        p.requires_grad = False
    frozen = model[0].weight.clone()
    decay = [p for n, p in model.named_parameters() if p.requires_grad and n.endswith("weight")]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    optimizer = T.optim.AdamW([{"params": decay, "weight_decay": 0.1},
                               {"params": rest, "weight_decay": 0.0, "lr": 0.05}], lr=0.02)
    scheduler = T.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = T.nn.CrossEntropyLoss(label_smoothing=0.1)(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return {"losses": losses, "frozen": bool(T.equal(frozen, model[0].weight)),
            "rates": [g["lr"] for g in optimizer.param_groups],
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "grad": model[0].weight.grad is None}


def transfer(T, folder):
    nn = T.nn
    old = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 5))
    new = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    result = new.load_state_dict(old.state_dict(), strict=False)
    extra = old.load_state_dict(new.state_dict(), strict=False)
    fitting = {k: v for k, v in old.state_dict().items() if not k.startswith("2.")}
    partly = new.load_state_dict(fitting, strict=False)
    x, y = two_moons(T)
    optimizer = T.optim.SGD(filter(lambda p: p.requires_grad, new.parameters()), lr=0.3)
    losses = []
    for _ in range(10):
        loss = nn.functional.nll_loss(nn.functional.log_softmax(new(x), dim=-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "results": [str(result), str(extra), str(partly)], "model": str(new)}


def checkpoint_and_resume(T, folder):
    def build():
        model = T.nn.Sequential(T.nn.Linear(2, 16), T.nn.ReLU(), T.nn.Dropout(0.3),
                                T.nn.Linear(16, 2))
        optimizer = T.optim.Adam(model.parameters(), lr=0.02)
        return model, optimizer, T.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)

    def train(parts, steps):
        model, optimizer, scheduler = parts
        for _ in range(steps):
            optimizer.zero_grad()
            loss = T.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            yield loss.item()

    x, y = two_moons(T)
    parts = build()
    losses = list(train(parts, 10))
    names = ("model", "optimizer", "scheduler")
    state = {name: part.state_dict() for name, part in zip(names, parts)}
    T.save({"epoch": 10, "rng": T.get_rng_state(), **state}, folder / "checkpoint.pt")
    straight = list(train(parts, 10))
    checkpoint = T.load(folder / "checkpoint.pt", map_location="cpu")
    parts = build()
    for name, part in zip(names, parts):
        part.load_state_dict(checkpoint[name])
    T.set_rng_state(checkpoint["rng"])
    resumed = list(train(parts, 10))
    assert resumed == straight
    return {"losses": losses + resumed, "epoch": checkpoint["epoch"]}


def early_stopping(T, folder):
    x, y = two_moons(T)
    model = T.nn.Linear(2, 2)
    optimizer = T.optim.SGD(model.parameters(), lr=2.0, momentum=0.9, nesterov=True)
    plateau = T.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    best, weights, patience, losses = float("inf"), None, 0, []
    for _ in range(30):
        model.train()
        optimizer.zero_grad()
        T.nn.functional.cross_entropy(model(x[:48]), y[:48]).backward()
        optimizer.step()
        model.eval()
        with T.no_grad():
            held_out = T.nn.functional.cross_entropy(model(x[48:]), y[48:]).item()
        plateau.step(held_out)
        losses.append(held_out)
        if held_out < best - 1e-3:
            best, patience, weights = held_out, 0, copy.deepcopy(model.state_dict())
        else:
            patience += 1
            if patience == 5:
                break
    model.load_state_dict(weights)
    losses.append(T.nn.functional.cross_entropy(model(x[48:]), y[48:]).item())
    return {"losses": losses, "best": best, "rate": optimizer.param_groups[0]["lr"]}


def datasets_and_samplers(T, folder):
    data = T.utils.data

    class Points(data.Dataset):
        def __init__(self, n):
            self.x = T.arange(n, dtype=T.float32)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, i):
            return {"x": self.x[i], "y": int(self.x[i] > 30), "name": f"p{i}"}

    train, test = data.random_split(Points(40), [0.75, 0.25],
                                    generator=T.Generator().manual_seed(1))
    labels = T.tensor([train[i]["y"] for i in range(len(train))])
    weights = 1.0 / T.bincount(labels)[labels].double()
    sampler = data.WeightedRandomSampler(weights, num_samples=40, replacement=True)
    loader = data.DataLoader(train, batch_size=8, sampler=sampler, drop_last=True)
    w = T.zeros(2, requires_grad=True)
    optimizer = T.optim.Adagrad([w], lr=0.5)
    losses, names = [], []
    for _ in range(4):
        for batch in loader:
            out = (batch["x"] - 20) / 10 * w[0] + w[1]
            loss = T.nn.functional.binary_cross_entropy_with_logits(out, batch["y"].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            names += batch["name"]
    return {"losses": losses, "names": names, "test": list(test.indices)}


def padded_batches(T, folder):
    def collate(batch):
        xs, ys = zip(*batch)
        lengths = T.tensor([len(x) for x in xs])
        padded = xs[0].new_zeros(len(xs), int(lengths.max()))
        for row, x in zip(padded, xs):
            row[:len(x)] = x
        return padded, lengths, T.stack(ys)

    data = [(T.randint(1, 12, (2 + i % 4,)), T.tensor(float(i % 2))) for i in range(20)]
    loader = T.utils.data.DataLoader(data, batch_size=5, collate_fn=collate)
    embedding = T.nn.Embedding(12, 6, padding_idx=0)
    query = T.nn.Parameter(T.rand(6))
    head = T.nn.Linear(6, 1)
    optimizer = T.optim.Adam([*embedding.parameters(), query, *head.parameters()], lr=0.05)
    losses = []
    for _ in range(6):
        total = 0.0
        for words, lengths, y in loader:
            x = embedding(words)
            mask = T.arange(words.size(1))[None, :] >= lengths[:, None]
            score = T.einsum("bld,d->bl", x, query).masked_fill(mask, float("-inf"))
            pooled = T.bmm(score.softmax(-1).unsqueeze(1), x).squeeze(1)
            loss = T.nn.functional.mse_loss(head(pooled).squeeze(-1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total)
    return {"losses": losses, "padding": embedding.weight[0]}


def tied_weights(T, folder):
    class Tied(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = T.nn.Embedding(10, 6)
            self.body = T.nn.Linear(6, 6)
            self.out = T.nn.Linear(6, 10, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(T.tanh(self.body(self.embed(x))))

    def init(m):
        if isinstance(m, T.nn.Linear):
            T.nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                T.nn.init.zeros_(m.bias)
        elif isinstance(m, T.nn.Embedding):
            T.nn.init.kaiming_uniform_(m.weight, a=math.sqrt(5))

    model = Tied().apply(init)
    optimizer = T.optim.NAdam(model.parameters(), lr=0.05)
    words = T.randint(0, 10, (30,))
    losses = []
    for _ in range(12):
        loss = T.nn.functional.cross_entropy(model(words[:-1]), words[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "tied": model.out.weight is model.embed.weight, "model": repr(model),
            "count": sum(p.numel() for p in model.parameters()), "keys": list(model.state_dict()),
            "shapes": [(n, tuple(p.shape)) for n, p in model.named_parameters()]}


def tensor_idioms(T, folder):
    F = T.nn.functional
    x = T.arange(24.0).reshape(2, 3, 4)
    w = T.rand(4, requires_grad=True)
    y = T.zeros(5, 3)
    y[T.arange(3), [2, 1, 0]] = T.tensor([1.0, 2.0, 3.0])
    y[y > 1.5] *= 10
    y.scatter_(1, T.tensor([[0], [1], [2], [0], [1]]), 7.0)
    top = x.view(-1).topk(3)
    found = {
        "one_hot": F.one_hot(T.tensor([0, 2, 1]), num_classes=4), "y": y,
        "dots": x[:, None, :, -1] + x[:, None, :, 1:2].squeeze(-1), "step": x[:, ::2, -2:],
        "where": T.where(x % 2 == 0, x, -x), "gather": x.gather(2, x.argmax(-1, keepdim=True)),
        "std": x.std(dim=(0, 2), unbiased=False),
        "permuted": x.permute(2, 0, 1).contiguous().view(4, -1),
        "normal": F.normalize(x, dim=-1), "top": top.values, "at": top.indices,
        "unique": T.unique(T.tensor([3, 1, 3]), return_counts=True)[1],
        "cat": T.cat([x, x.flip(0)], dim=0).sum((1, 2)), "tri": T.tril(T.ones(3, 3)).bool(),
        "broadcast": x.mean(-1, keepdim=True).expand_as(x).transpose(0, 1),
        "lerp": T.lerp(x, x + 1, 0.5),
        "cumulative": x.cumsum(-1).cumprod(0), "nonzero": (x > 20).nonzero(as_tuple=False),
        "repr": [repr(x[0]), repr(w.dtype), str(x.shape), f"{x[0, 0, 1]:.2f}", repr(x > 22)],
        "meta": [x.dtype is T.float32, x.is_contiguous(), x.stride(), x.device.type, len(x)],
        "mesh": T.meshgrid(T.arange(2), T.arange(3), indexing="ij")[0],
        "sort": T.sort(T.tensor([3.0, 1.0, 2.0]), descending=True)[1],
        "roll": T.roll(x, 1, dims=0), "matmul": x @ x.mT, "chunk": x.chunk(2, dim=-1)[1],
    }
    losses = []
    for _ in range(8):
        loss = ((x / 24) @ w - 1).square().mean()
        (grad,) = T.autograd.grad(loss, w)
        w.data.sub_(grad, alpha=0.3)
        losses.append(loss.item())
    return {"losses": losses, **found}


def weight_average(T, folder):
    x, y = two_moons(T)
    model = T.nn.Sequential(T.nn.Linear(2, 8), T.nn.BatchNorm1d(8), T.nn.Tanh(),
                            T.nn.Linear(8, 2))
    average = T.optim.swa_utils.AveragedModel(model)
    optimizer = T.optim.SGD(model.parameters(), lr=0.5)
    warm = T.optim.lr_scheduler.LambdaLR(optimizer, lambda e: min(1.0, (e + 1) / 5))
    losses = []
    for _ in range(12):
        optimizer.zero_grad(set_to_none=False)
        loss = T.nn.functional.cross_entropy(model(x), y, weight=T.tensor([1.0, 2.0]))
        loss.backward()
        optimizer.step()
        warm.step()
        average.update_parameters(model)
        losses.append(loss.item())
    return {"losses": losses, "average": average.module[0].weight}


SCRIPTS = [
    mlp_regression, cnn_classifier, autoencoder, text_classifier, gan, gradient_penalty,
    accumulation_and_clipping, custom_function, buffers_and_hooks, lbfgs_closure,
    groups_and_freezing, transfer, checkpoint_and_resume, early_stopping, datasets_and_samplers,
    padded_batches, tied_weights, tensor_idioms, weight_average,
]


def run(script, library, folder):
    """What the script returns, from a fixed seed, with tensors made NumPy arrays."""
    for name in ("utils.data", "optim.swa_utils"):
        importlib.import_module(f"{library.__name__}.{name}")
    library.manual_seed(0)
    found = script(library, folder)
    return {k: v.detach().numpy() if isinstance(v, library.Tensor) else v for k, v in found.items()}


def agree(ours, theirs, what):
    """Floating-point numbers agree to 1e-4, everything else exactly."""
    numbers = theirs if isinstance(theirs, list) else [theirs]
    if all(isinstance(n, float) or getattr(n, "dtype", np.dtype(int)).kind == "f" for n in numbers):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=what)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype, what
        np.testing.assert_array_equal(ours, theirs, err_msg=what)
    else:
        assert ours == theirs, what


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda f: f.__name__)
def test_loss_falls(script, tmp_path):
    losses = run(script, gpunn, tmp_path)["losses"]
    third = max(1, len(losses) // 3)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-third:]) < np.mean(losses[:third])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda f: f.__name__)
def test_as_pytorch(script, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    theirs, ours = run(script, torch, tmp_path), run(script, gpunn, tmp_path)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        agree(ours[name], theirs[name], f"{script.__name__}: {name}")
