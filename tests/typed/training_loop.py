"""A training script as its writer would type it."""

from __future__ import annotations

import gpunn as torch
import gpunn.nn.functional as F
from gpunn import Tensor, nn, optim
from gpunn.utils.data import DataLoader, Dataset, TensorDataset, random_split


class Block(nn.Module):
    """Two convolutions and the way around them."""

    scale: Tensor

    def __init__(self, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding="same")
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("scale", torch.tensor(0.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.conv1(x)))
        return x + self.gain * self.scale * self.dropout(self.conv2(h))


class Net(nn.Module):
    def __init__(self, channels: int = 8, depth: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels) for _ in range(depth)])
        self.body = nn.Sequential(*(Block(channels) for _ in range(depth)))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.body(x).mean(dim=(2, 3))
        return x if features else self.head(x)


class Squares(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, count: int) -> None:
        self.x = torch.arange(count, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.x[index] ** 2


def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((model(images).argmax(dim=1) == labels).sum().item())
            total += labels.size(0)
    return right / total


def train(epochs: int, device: torch.device) -> dict[str, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(64, 1, 8, 8)
    labels = torch.randint(0, 10, (64,))
    data = TensorDataset(images, labels)
    first, second = random_split(data, [48, 16], generator=torch.Generator().manual_seed(1))
    model = Net().to(device)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=0, drop_last=True)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device)
            loss = criterion(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            total += loss.item() * x.size(0)
        schedule.step()
        print(f"{epoch}: {total / len(data):.3f}, {schedule.get_last_lr()}")
    print(accuracy(model, loader), len(first), len(second))
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            print(name, tuple(parameter.shape), parameter.grad.norm().item())
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "net.pt")
    saved = torch.load("net.pt", map_location="cpu", weights_only=True)
    missing = model.load_state_dict(saved["model"], strict=True)
    print(missing.missing_keys, torch.summary(model, (1, 1, 8, 8)))
    return model.state_dict()


def mixed_precision(model: nn.Module, x: Tensor) -> Tensor:
    scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss: Tensor = model(x).float().pow(2).mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = train(1, device)
    print(sum(value.numel() for value in state.values()))
    print(mixed_precision(Net(), torch.randn(2, 1, 8, 8)))
    for x, y in DataLoader(Squares(4), batch_size=2):
        print(x + y)
