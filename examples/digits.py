"""Handwritten digits: a small convolutional network, trained, validated, stopped and continued.

    python examples/digits.py                            # trains, plots, saves; under a minute
    python examples/digits.py --resume digits/model.pt   # goes on where a run was stopped
    python examples/digits.py --impl torch               # the very same script with PyTorch
    python examples/digits.py --device cuda

The data are the 1,797 images of 8 x 8 pixels that scikit-learn ships. Everything that decides
the course of the training is seeded, and a checkpoint holds all of it: a run that is stopped
(Ctrl-C, or --steps) and continued has the same losses, digit for digit, as one that was not.
Needs: pip install scikit-learn matplotlib
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import signal
import time
from pathlib import Path

from tqdm import tqdm


def main(argv: list[str] | None = None) -> dict:
    """Trains as the command line says; returns the history that is also written to a file."""
    args = parse(argv)
    # The one line that differs between the two packages. In your own script it is
    # `import gpunn as torch`, and all that follows stays as PyTorch's documentation has it.
    torch = importlib.import_module(args.impl)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    train_loader, val_loader, test_loader = make_loaders(torch, args)
    model = make_model(torch).to(args.device)
    trainer = Trainer(torch, model, train_loader, args)
    if args.resume:
        trainer.load(args.resume)

    start = time.perf_counter()
    trainer.fit(train_loader, val_loader)
    trainer.save(out / "model.pt")
    history = trainer.history
    history["test_accuracy"] = evaluate(torch, model, test_loader, args.device)[1]
    write(out / "history.json", json.dumps(history))
    plot(history, out / "curves.png")
    print(
        f"{args.impl}: {trainer.step} steps in {time.perf_counter() - start:.1f} s, "
        f"test accuracy {history['test_accuracy']:.2%}; see {out / 'curves.png'}"
    )
    return history


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--out", default="digits", help="folder for checkpoint, history, plot")
    return parser.parse_args(argv)


# --- data ---------------------------------------------------------------------------------


def make_loaders(torch, args):
    """Loaders of the training, validation and test images."""
    from sklearn.datasets import load_digits

    data = torch.utils.data
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)  # (N, 1, 8, 8)
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(args.seed)
    splits = data.random_split(
        data.TensorDataset(images, labels), [0.7, 0.1, 0.2], generator=generator
    )
    train, val, test = splits
    # The order of the training images has a generator of its own. Its state when an epoch
    # begins, and how many batches of the epoch are done, is all that a checkpoint needs of it.
    order = torch.Generator().manual_seed(args.seed)
    return (
        data.DataLoader(train, args.batch_size, shuffle=True, generator=order),
        data.DataLoader(val, 256),
        data.DataLoader(test, 256),
    )


# --- model --------------------------------------------------------------------------------


def make_model(torch):
    """Two convolutions on 8 x 8, one on 4 x 4, and a linear layer on what is left."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 2 * 2, 10),
    )


# --- training -----------------------------------------------------------------------------


class Trainer:
    """The state of a training run: what a step changes, and what a checkpoint must hold."""

    def __init__(self, torch, model, train_loader, args):
        self.torch, self.model, self.args = torch, model, args
        self.order = train_loader.generator
        self.batches = len(train_loader)
        # SGD keeps two runs that differ by rounding together; Adam divides by tiny gradients
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=0.1, total_steps=args.epochs * self.batches
        )
        self.step = 0
        self.epoch_order = self.order.get_state()
        self.history = {"loss": [], "val_loss": [], "val_accuracy": []}
        self.last = args.epochs * self.batches
        self.last = min(self.last, args.steps or self.last)

    def fit(self, train_loader, val_loader):
        """Trains until the epochs, or the steps asked for, are over, or until Ctrl-C."""
        before = signal.signal(signal.SIGINT, self.stop)
        with tqdm(total=self.last, initial=self.step, unit="step") as bar:
            while self.step < self.last:
                for images, labels in self.rest_of_epoch(train_loader):
                    loss = self.train_step(images, labels)
                    bar.update()
                    bar.set_postfix(loss=f"{loss:.4f}", **self.last_accuracy(), refresh=False)
                    if self.step >= self.last:
                        break
                if self.step % self.batches == 0:
                    self.validate(val_loader)
                    self.epoch_order = self.order.get_state()
        signal.signal(signal.SIGINT, before)

    def stop(self, *_):
        """Ctrl-C: ends the training after the step that runs, so that none is half done."""
        self.last = min(self.last, self.step + 1)

    def train_step(self, images, labels):
        """One step of the optimizer; returns the loss."""
        F, device = self.torch.nn.functional, self.args.device
        self.model.train()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images.to(device)), labels.to(device))
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self.history["loss"].append(loss.item())
        return loss.item()

    def validate(self, loader):
        loss, accuracy = evaluate(self.torch, self.model, loader, self.args.device)
        self.history["val_loss"].append(loss)
        self.history["val_accuracy"].append(accuracy)

    def last_accuracy(self):
        done = self.history["val_accuracy"]
        return {"val": f"{done[-1]:.1%}"} if done else {}

    def rest_of_epoch(self, loader):
        """The batches of this epoch that are still to come: its order, drawn again if the run
        was continued in its middle, without those that were seen."""
        self.order.set_state(self.epoch_order)
        return itertools.islice(loader, self.step % self.batches, None)

    def save(self, path):
        """Writes a checkpoint; a crash while writing leaves the old one as it was."""
        checkpoint = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": self.torch.get_rng_state(),
            "epoch_order": self.epoch_order,
            "step": self.step,
            "history": self.history,
        }
        part = f"{path}.part"
        self.torch.save(checkpoint, part)
        os.replace(part, path)

    def load(self, path):
        """Goes back to the state of a checkpoint."""
        checkpoint = self.torch.load(path, map_location=self.args.device)
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        self.torch.set_rng_state(checkpoint["rng"].cpu())
        self.epoch_order = checkpoint["epoch_order"].cpu()
        self.step = checkpoint["step"]
        self.history = checkpoint["history"]


def evaluate(torch, model, loader, device):
    """Mean loss and accuracy over a loader."""
    model.eval()
    loss = correct = count = 0
    with torch.no_grad():
        for images, labels in loader:
            logits, labels = model(images.to(device)), labels.to(device)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
    return loss / count, correct / count


# --- results ------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def plot(history: dict, path: Path) -> None:
    """The curves as a picture: losses on the left, accuracy on the right."""
    import matplotlib

    matplotlib.use("Agg")  # draws without a screen
    import matplotlib.pyplot as plt

    epochs = len(history["val_loss"])
    ends = [len(history["loss"]) * (i + 1) / max(epochs, 1) for i in range(epochs)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(range(1, len(history["loss"]) + 1), history["loss"], lw=0.8, label="training")
    left.plot(ends, history["val_loss"], "o-", ms=4, label="validation")
    left.set(xlabel="step", ylabel="cross-entropy", yscale="log", title="Loss")
    left.legend()
    right.plot(range(1, epochs + 1), history["val_accuracy"], "o-", ms=4, label="validation")
    right.axhline(
        history["test_accuracy"], color="black", ls="--", lw=1,
        label=f"test, at the end: {history['test_accuracy']:.2%}",
    )  # fmt: skip
    right.set(xlabel="epoch", ylabel="accuracy", title="Accuracy")
    right.legend(loc="lower right")
    part = path.with_name(f"{path.stem}.part.png")
    figure.savefig(part, dpi=120)
    plt.close(figure)
    os.replace(part, path)


if __name__ == "__main__":
    main()
