"""A character language model: what comes next in English text, letter by letter.

    python examples/char_lm.py                             # about a minute on two CPU cores
    python examples/char_lm.py --resume char_lm/model.pt   # goes on where a run was stopped
    python examples/char_lm.py --impl torch                # the very same script with PyTorch
    python examples/char_lm.py --device cuda --steps 5000

The text is the part of Python's manual that Python itself ships for `help("if")` and the like:
half a million characters. Each character is embedded; dilated convolutions that only look back
let every position see the 63 before it; the loss is the cross-entropy of the next character.
Divided by ln 2 it is in bits: what a perfect compressor would need per character by this model.
Everything that decides the course of the training is seeded and in the checkpoint: a run that
was stopped has, when it is continued, the same losses as one that was not.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import time
from pathlib import Path

from tqdm import trange

CONTEXT = 64  # characters that a prediction sees: 1 + 2 * (1 + 2 + 4 + 8 + 16), and a little


def main(argv: list[str] | None = None) -> dict:
    """Trains as the command line says; returns losses, bits per character and a sample."""
    args = parse(argv)
    # The one line that differs between the two packages. In your own script it is
    # `import gpunn as torch`, and all that follows stays as PyTorch's documentation has it.
    torch = importlib.import_module(args.impl)
    torch.manual_seed(args.seed)

    text = read_text()
    characters = sorted(set(text))
    code = {character: number for number, character in enumerate(characters)}
    ids = torch.tensor([code[character] for character in text])
    split = len(ids) * 9 // 10
    train, val = ids[:split], ids[split:]

    model = make_model(torch, len(characters), args.width).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    where = torch.Generator().manual_seed(args.seed)  # decides which pieces of text are read
    losses: list[float] = []
    if args.resume:
        losses = load(torch, args, model, optimizer, where)

    start = time.perf_counter()
    with trange(len(losses), args.steps, initial=len(losses), total=args.steps) as bar:
        for step in bar:
            set_rate(optimizer, args.lr, step, args.steps)
            x, y = draw_batch(torch, train, args, where)
            losses.append(train_step(torch, model, optimizer, x, y))
            bar.set_postfix(bits=f"{losses[-1] / math.log(2):.3f}", refresh=False)
            if len(losses) % args.save_every == 0 or len(losses) == args.steps:
                save(torch, Path(args.out), model, optimizer, where, losses)
    seconds = time.perf_counter() - start

    bits = bits_per_character(torch, model, val, args)
    print(f"{args.impl}: {args.steps} steps, {seconds:.1f} s, {bits:.3f} bits per character")
    sample = write(torch, model, characters, "The ", args)
    print(sample)
    return {"loss": losses, "bits": bits, "sample": sample}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=128, help="characters of a training piece")
    parser.add_argument("--width", type=int, default=128, help="channels of the convolutions")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=400, help="characters to write at the end")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--resume", metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--out", default="char_lm", help="folder of the checkpoint")
    return parser.parse_args(argv)


# --- data ---------------------------------------------------------------------------------


def read_text() -> str:
    """Python's help topics, one after the other; characters beyond ASCII are left out."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return text.encode("ascii", "ignore").decode()


def draw_batch(torch, ids, args, where):
    """Random pieces of text, (batch, length), and the same pieces one character later."""
    starts = torch.randint(len(ids) - args.length, (args.batch_size, 1), generator=where)
    places = starts + torch.arange(args.length)
    return ids[places].to(args.device), ids[places + 1].to(args.device)


# --- model --------------------------------------------------------------------------------


def make_model(torch, vocabulary: int, width: int):
    """Characters (batch, length) to scores of the next one (batch, length, vocabulary)."""
    nn, F = torch.nn, torch.nn.functional

    class CausalBlock(nn.Module):
        """A convolution that sees its position and those before, added to its input."""

        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.pad = 2 * dilation
            self.conv = nn.Conv1d(width, width, kernel_size=3, dilation=dilation)
            self.mix = nn.Conv1d(width, width, kernel_size=1)

        def forward(self, x):
            seen = F.pad(x, (self.pad, 0))  # nothing from the right: no look ahead
            return x + self.mix(F.relu(self.conv(seen)))

    class CharLM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.blocks = nn.Sequential(*(CausalBlock(2**i) for i in range(5)))
            self.head = nn.Linear(width, vocabulary)

        def forward(self, ids):
            x = self.embedding(ids).transpose(1, 2)  # (batch, width, length) for Conv1d
            return self.head(self.blocks(x).transpose(1, 2))

    return CharLM()


# --- training -----------------------------------------------------------------------------


def set_rate(optimizer, highest: float, step: int, steps: int) -> None:
    """The learning rate: up for 20 steps, then down along a cosine."""
    rate = highest * min((step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def train_step(torch, model, optimizer, x, y) -> float:
    """One step of the optimizer; returns the loss in nats."""
    optimizer.zero_grad()
    scores = model(x)
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def bits_per_character(torch, model, ids, args) -> float:
    """The mean loss in bits over text that was not trained on; each has some context."""
    pieces = ids[: len(ids) // 256 * 256].view(-1, 256)[:64]
    total = count = 0
    with torch.no_grad():
        for piece in pieces.split(16):
            scores = model(piece[:, :-1].to(args.device))[:, CONTEXT:]
            target = piece[:, 1 + CONTEXT :].to(args.device)
            loss = torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), target.flatten(), reduction="sum"
            )
            total, count = total + loss.item(), count + target.numel()
    return total / count / math.log(2)


def write(torch, model, characters, start: str, args) -> str:
    """Text by the model: one character after the other is drawn and appended."""
    ids = [characters.index(character) for character in start]
    with torch.no_grad():
        for _ in range(args.sample):
            seen = torch.tensor([ids[-CONTEXT:]], device=args.device)
            chances = (model(seen)[0, -1] / args.temperature).softmax(-1)
            ids.append(torch.multinomial(chances, 1).item())
    return "".join(characters[i] for i in ids)


# --- checkpoints --------------------------------------------------------------------------


def save(torch, folder: Path, model, optimizer, where, losses: list[float]) -> None:
    """Writes all that training depends on; a crash while writing leaves the old file."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "model.pt.part"
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "where": where.get_state(),
        "rng": torch.get_rng_state(),
        "loss": losses,
    }
    torch.save(checkpoint, part)
    os.replace(part, folder / "model.pt")


def load(torch, args, model, optimizer, where) -> list[float]:
    """Goes back to the state of a checkpoint; returns the losses so far."""
    checkpoint = torch.load(args.resume, map_location=args.device)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    where.set_state(checkpoint["where"].cpu())
    torch.set_rng_state(checkpoint["rng"].cpu())
    return checkpoint["loss"]


if __name__ == "__main__":
    main()
