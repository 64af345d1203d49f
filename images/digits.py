"""Draws digits.png, the picture of the README, from two runs of one script.

    python examples/digits.py --out g && python examples/digits.py --impl torch --out t
    python images/digits.py g t
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws without a screen
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))


def misread(folder: Path):
    """The test images that the trained model takes for another digit: (image, label, answer)."""
    import digits

    import gpunn as torch

    model = digits.make_model(torch)
    model.load_state_dict(torch.load(folder / "model.pt")["model"])
    model.eval()
    args = argparse.Namespace(batch_size=64, seed=0)
    _, _, loader = digits.make_loaders(torch, args)
    found, count = [], 0
    for images, labels in loader:
        answers = model(images).argmax(1)
        for i in (answers != labels).nonzero().flatten().tolist():
            found.append((images[i, 0].numpy(), int(labels[i]), int(answers[i])))
        count += len(labels)
    return found, count


def main() -> None:
    """Draws the losses of both runs, and the digits that the first one misread."""
    ours, theirs = (Path(folder) for folder in sys.argv[1:3])
    losses = [json.loads((run / "history.json").read_text())["loss"] for run in (ours, theirs)]
    wrong, count = misread(ours)
    figure = plt.figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    axes = left.subplots()
    axes.plot(losses[1], color="C1", lw=4, alpha=0.45, label="PyTorch 2.13")
    axes.plot(losses[0], color="C0", lw=0.9, label="gpunn")
    axes.set(xlabel="step", ylabel="cross-entropy", yscale="log")
    axes.set_title("examples/digits.py: one script, one seed, one curve", fontsize=11)
    axes.legend()
    right.suptitle(f"{len(wrong)} of {count} test digits are misread", fontsize=11)
    columns = (len(wrong) + 1) // 2
    for axes, (image, label, answer) in zip(
        right.subplots(2, columns, squeeze=False).flat, wrong, strict=False
    ):
        axes.imshow(image, cmap="gray_r")
        axes.set_title(f"{label}, read {answer}", fontsize=10)
    for axes in right.axes:
        axes.set(xticks=[], yticks=[])
        axes.set_visible(axes.has_data())
    part = HERE / "digits.part.png"
    figure.savefig(part, dpi=100)
    os.replace(part, HERE / "digits.png")


if __name__ == "__main__":
    main()
