"""What role does each name play? A two-way LSTM tags the lines of Python's standard library.

    python examples/lstm_tagger.py                                 # about a minute on two CPU cores
    python examples/lstm_tagger.py --resume lstm_tagger/model.pt   # goes on with a stopped run
    python examples/lstm_tagger.py --impl torch                    # the same script with PyTorch
    python examples/lstm_tagger.py --device cuda --steps 3000

Like the parts of speech of English, the role of a name hangs on what stands around it: in
`def f(key, at=key): at.key = g(key=1)` the word `key` is a parameter, is read, is an attribute
and names an argument. Python's own parser says which; the model sees only the tokens of one line,
read forwards and backwards, and is measured on files that it was not trained on. Keywords,
operators and literals are read but not scored: there is nothing to guess about them.
A word is embedded whole and by its letters (a convolution over them, so that `readline` helps
with `read_lines`), as in Ma & Hovy 2016, "End-to-end Sequence Labeling via Bi-directional
LSTM-CNNs-CRF", without the CRF.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import keyword
import os
import sys
import sysconfig
import time
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm, trange

TAGS = [
    "function", "class", "parameter", "argument", "call", "method", "attribute", "import",
    "module", "write", "read",
]  # fmt: skip
IGNORE = -100  # the tag of what is not scored
LETTERS = 16  # of a word; the rest of longer ones is cut off
UNKNOWN = 1  # the number of a word that training did not show twice; 0 is padding


def main(argv: list[str] | None = None) -> dict:
    """Trains as the command line says; returns the losses and two accuracies."""
    args = parse(argv)
    # The one line that differs between the two packages. In your own script it is
    # `import gpunn as torch`, and all that follows stays as PyTorch's documentation has it.
    torch = importlib.import_module(args.impl)
    torch.manual_seed(args.seed)

    train, val = read_library(args.files)
    words = make_vocabulary(train)
    model = make_model(torch, len(words) + 2, args.hidden, args.dropout).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    where = torch.Generator().manual_seed(args.seed)  # decides which lines are read
    losses: list[float] = []
    if args.resume:
        losses = load(torch, args, words, model, optimizer, where)

    start = time.perf_counter()
    with trange(len(losses), args.steps, initial=len(losses), total=args.steps) as bar:
        for step in bar:
            for group in optimizer.param_groups:  # down to nothing, in a straight line
                group["lr"] = args.lr * (1 - step / args.steps)
            chosen = torch.randint(len(train), (args.batch_size,), generator=where).tolist()
            batch = make_batch(torch, [train[i] for i in chosen], words)
            losses.append(train_step(torch, model, optimizer, batch, args.device))
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            if len(losses) % args.save_every == 0 or len(losses) == args.steps:
                save(torch, args, words, model, optimizer, where, losses)
    seconds = time.perf_counter() - start

    print(f"{args.impl}: {args.steps} steps, {seconds:.1f} s")
    found = tag(torch, model, val, words, args.device)
    scores = report(train, val, found)
    print_lines(train, val, found)
    return {"loss": losses, **scores}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=["gpunn", "torch"], default="gpunn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=32, help="lines of a step")
    parser.add_argument("--files", type=int, default=80, help="modules of the library to read")
    parser.add_argument("--hidden", type=int, default=96, help="state of each LSTM direction")
    parser.add_argument("--dropout", type=float, default=0.0, help="between the LSTM's layers")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--out", default="lstm_tagger", help="folder of the checkpoint")
    return parser.parse_args(argv)


# --- data: a line is a list of (word, tag), the tag None where nothing is scored ----------


def read_library(count: int):
    """The lines of `count` modules of the standard library; each fifth is for validation."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in folder.glob("*.py") if path.stem in sys.stdlib_module_names]
    files.sort()
    if len(files) < 5:
        sys.exit(f"lstm_tagger: there is no source of the standard library in {folder}")
    files = files[:: max(len(files) // count, 1)][:count]
    train, val = [], []
    for number, path in enumerate(tqdm(files, desc="reading", unit="file")):
        source = path.read_text(encoding="utf-8")
        if source.isascii():  # the parser counts columns in bytes, the tokenizer in characters
            (val if number % 5 == 4 else train).extend(read_lines(source))
    return train, val


def read_lines(source: str) -> list[list[tuple[str, str | None]]]:
    """The tokens of each statement that has a name in it, with the names' roles."""
    role = find_roles(ast.parse(source))
    lines, line, inside = [], [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        inside += (kind == "FSTRING_START") - (kind == "FSTRING_END")  # of Python 3.12 on
        if kind == "NEWLINE":
            if any(role for _, role in line) and len(line) <= 60:
                lines.append(line)
            line = []
        elif inside:  # an f-string is one word, whatever stands in it
            continue
        elif kind in ("STRING", "FSTRING_END"):
            line.append(('"text"', None))
        elif kind == "NUMBER":
            line.append(("0", None))
        elif kind == "OP" or keyword.iskeyword(token.string):
            line.append((token.string, None))
        elif kind == "NAME":
            first, before = (line[0][0], line[-1][0]) if line else ("", "")
            given = {"def": "function", "class": "class"}.get(before)  # these three have no
            given = "import" if first in ("import", "from") else given  # place in the tree
            line.append((token.string, given or role.get(token.start)))
    return lines


def find_roles(tree: ast.AST) -> dict[tuple[int, int], str]:
    """The role of the name that starts at (row, column), by the syntax tree."""
    nodes = list(walk(tree))
    modules = {
        alias.asname or alias.name.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    role = {}
    for node in nodes:
        if isinstance(node, ast.Name):
            write = not isinstance(node.ctx, ast.Load)
            use = "module" if node.id in modules else "call" if id(node) in called else "read"
            role[node.lineno, node.col_offset] = "write" if write else use
        elif isinstance(node, ast.Attribute):
            place = node.end_lineno, node.end_col_offset - len(node.attr)
            role[place] = "method" if id(node) in called else "attribute"
        elif isinstance(node, ast.arg):
            role[node.lineno, node.col_offset] = "parameter"
        elif isinstance(node, ast.keyword) and node.arg:
            role[node.lineno, node.col_offset] = "argument"
    return role


def walk(node: ast.AST):
    """All nodes below, but not those in f-strings: before Python 3.12 their places are wrong."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            yield child
            yield from walk(child)


def make_vocabulary(lines) -> dict[str, int]:
    """A number for each word that the lines hold twice or more."""
    counts = Counter(word for line in lines for word, _ in line)
    common = sorted(word for word, count in counts.items() if count > 1)
    return {word: number for number, word in enumerate(common, UNKNOWN + 1)}


def make_batch(torch, lines, words):
    """(inputs, lengths, tags) of lines of unequal length, padded: inputs (batch, length,
    1 + LETTERS) holds the number of each word and the codes of its letters."""
    inputs, tags = [], []
    for line in lines:
        rows = []
        for word, _ in line:
            codes = list(word[:LETTERS].encode())
            rows.append([words.get(word, UNKNOWN), *codes, *[0] * (LETTERS - len(codes))])
        inputs.append(torch.tensor(rows))
        tags.append(torch.tensor([TAGS.index(role) if role else IGNORE for _, role in line]))
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(line) for line in lines])
    return (
        pad(inputs, batch_first=True),
        lengths,
        pad(tags, batch_first=True, padding_value=IGNORE),
    )


# --- model --------------------------------------------------------------------------------


def make_model(torch, vocabulary: int, hidden: int, dropout: float = 0.0):
    """Inputs (batch, length, 1 + LETTERS) to scores of each tag (batch, length, tags)."""
    nn = torch.nn
    rnn = nn.utils.rnn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word = nn.Embedding(vocabulary, 64, padding_idx=0)
            self.letter = nn.Embedding(128, 24, padding_idx=0)
            self.conv = nn.Conv1d(24, 64, kernel_size=3, padding=1)
            self.lstm = nn.LSTM(
                128, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=dropout
            )
            self.head = nn.Linear(2 * hidden, len(TAGS))

        def forward(self, inputs, lengths):
            # Packed, the words of all lines stand in one list without padding: nothing is
            # computed for padding, and the backward direction starts at each line's own end.
            packed = rnn.pack_padded_sequence(
                inputs, lengths, batch_first=True, enforce_sorted=False
            )
            states, _ = self.lstm(rnn.PackedSequence(self.embed(packed.data), *packed[1:]))
            states, _ = rnn.pad_packed_sequence(states, batch_first=True)
            return self.head(states)

        def embed(self, words):
            """Words (number, 1 + LETTERS) to vectors (number, 128)."""
            letters = self.letter(words[:, 1:]).transpose(1, 2)  # (number, 24, LETTERS)
            spelling = self.conv(letters).amax(-1)
            return torch.cat([self.word(words[:, 0]), spelling], -1)

    return Tagger()


# --- training -----------------------------------------------------------------------------


def train_step(torch, model, optimizer, batch, device) -> float:
    """One step of the optimizer; returns the mean loss of the names, in nats."""
    inputs, lengths, tags = batch
    model.train()
    optimizer.zero_grad()
    scores = model(inputs.to(device), lengths)
    loss = torch.nn.functional.cross_entropy(
        scores.flatten(0, 1), tags.flatten().to(device), ignore_index=IGNORE
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def tag(torch, model, lines, words, device) -> list[list[str]]:
    """The model's tag of each token of each line."""
    model.eval()
    order = sorted(range(len(lines)), key=lambda i: len(lines[i]))  # alike in length: little pad
    found: list[list[str]] = [[] for _ in lines]
    with torch.no_grad():
        for first in trange(0, len(order), 256, desc="tagging", unit="batch"):
            chosen = order[first : first + 256]
            inputs, lengths, _ = make_batch(torch, [lines[i] for i in chosen], words)
            best = model(inputs.to(device), lengths).argmax(-1).tolist()
            for i, row in zip(chosen, best):
                found[i] = [TAGS[number] for number in row[: len(lines[i])]]
    return found


# --- results ------------------------------------------------------------------------------


def most_frequent(lines) -> dict[str, str]:
    """What is known without context: the most frequent role of each word."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for line in lines:
        for word, role in line:
            if role:
                counts[word][role] += 1
    return {word: roles.most_common(1)[0][0] for word, roles in counts.items()}


def report(train, val, found) -> dict:
    """Prints how many names have the right tag, beside what a list of words would get."""
    usual = most_frequent(train)
    common = Counter(role for line in train for _, role in line if role).most_common(1)[0][0]
    right, listed, total = Counter(), Counter(), Counter()
    for line, tags in zip(val, found):
        for (word, role), guess in zip(line, tags):
            if role:
                for group in ("all", role) + (() if word in usual else ("new",)):
                    total[group] += 1
                    right[group] += guess == role
                    listed[group] += usual.get(word, common) == role
    print(f"\n{'names in files not trained on':>30} {'number':>8} {'model':>8} {'by word':>8}")
    for group in ["all", "new", *TAGS]:
        if total[group]:
            name = {"all": "all", "new": "not met in training"}.get(group, group)
            shares = f"{right[group] / total[group]:8.1%} {listed[group] / total[group]:8.1%}"
            print(f"{name:>30} {total[group]:8} {shares}")
    print("(by word: without context, each name has the role it most often had in training)")
    everything = total["all"]
    return {"accuracy": right["all"] / everything, "baseline": listed["all"] / everything}


def print_lines(train, val, found, count: int = 4) -> None:
    """Prints some lines of many roles in which a word has not its usual one, and some mistakes."""
    usual = most_frequent(train)

    def variety(i: int) -> int:
        roles = {role: usual.get(word) != role for word, role in val[i] if role}
        return len(roles) if any(roles.values()) and len(val[i]) <= 20 else 0

    rich = sorted(range(len(val)), key=variety, reverse=True)
    wrong = [i for i in rich if any(r and r != g for (_, r), g in zip(val[i], found[i]))]
    mistaken = set(wrong)
    right = [i for i in rich if i not in mistaken]
    print("\nSome lines of these files, and the roles that the model gives:\n")
    print("\n\n".join(show(val[i], found[i]) for i in different(val, right, count)))
    print(f"\nA name is wrong in {len(wrong)} of {len(val)} lines; its role is after the slash:\n")
    print("\n\n".join(show(val[i], found[i]) for i in different(val, wrong, count)))


def different(val, candidates: list[int], count: int) -> list[int]:
    """The first `count` candidates that share at most one name with those before."""
    chosen: list[int] = []
    seen: list[set[str]] = []
    for i in candidates:
        names = {word for word, role in val[i] if role}
        if len(chosen) < count and all(len(names & others) < 2 for others in seen):
            chosen.append(i)
            seen.append(names)
    return chosen


def show(line, tags) -> str:
    """A line, and below each name its tag."""
    above, below = "", ""
    for (word, role), guess in zip(line, tags):
        label = "" if not role else guess if guess == role else f"{guess}/{role}"
        width = max(len(word), len(label)) + 1
        above, below = above + word.ljust(width), below + label.ljust(width)
    return f"    {above.rstrip()}\n    {below.rstrip()}"


# --- checkpoints --------------------------------------------------------------------------


def save(torch, args, words, model, optimizer, where, losses) -> None:
    """Writes all that training depends on; a crash while writing leaves the old file."""
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "model.pt.part"
    checkpoint = {
        "words": list(words),
        "hidden": args.hidden,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "where": where.get_state(),
        "rng": torch.get_rng_state(),
        "loss": losses,
    }
    torch.save(checkpoint, part)
    os.replace(part, folder / "model.pt")


def load(torch, args, words, model, optimizer, where) -> list[float]:
    """Goes back to the state of a checkpoint; returns the losses so far."""
    if not Path(args.resume).is_file():
        sys.exit(f"lstm_tagger: there is no file {args.resume}; a run without --resume makes one")
    checkpoint = torch.load(args.resume, map_location=args.device)
    if not {"words", "hidden"} <= checkpoint.keys():
        sys.exit(f"lstm_tagger: {args.resume} is not a checkpoint of lstm_tagger.py")
    if checkpoint["hidden"] != args.hidden:
        had = checkpoint["hidden"]
        sys.exit(f"lstm_tagger: {args.resume} has --hidden {had}, this run --hidden {args.hidden}")
    if checkpoint["words"] != list(words):
        sys.exit(f"lstm_tagger: {args.resume} was trained with other --files or another Python")
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    where.set_state(checkpoint["where"].cpu())
    torch.set_rng_state(checkpoint["rng"].cpu())
    return checkpoint["loss"]


if __name__ == "__main__":
    main()
