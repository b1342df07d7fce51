"""PyTorch as contender:  python -m benchmarks.contenders.pytorch torch_bfloat16 MODEL FOLDER TURNS BATCH

Eager, channels_last, fused Adam, all images in one tensor; needs .bench/venv (`make bench`).
"""

import sys

import torch
from torch import nn

from benchmarks.contenders.turns import LEARNING_RATE, Turns, arrays, epochs

SCORING_BATCH = 500
Tensors = tuple[torch.Tensor, torch.Tensor]


def conv(before: int, after: int, *more: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding="same"), nn.ReLU(), *more]


def network(name: str) -> nn.Module:
    """The network of params.yaml."""
    layers = {
        "model_1": lambda: [
            *(nn.Conv2d(1, 32, 3, padding="same"), nn.MaxPool2d(2)),
            *conv(32, 64, nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
        ],
        "model_2": lambda: [
            *conv(1, 32, nn.MaxPool2d(2)),
            *conv(32, 64, nn.MaxPool2d(2), nn.Dropout(0.3), nn.BatchNorm2d(64)),
            *conv(64, 128),
            *conv(128, 128, nn.MaxPool2d(2), nn.Dropout(0.4)),
            *(nn.Flatten(), nn.BatchNorm1d(1152), nn.Linear(1152, 512), nn.ReLU(), nn.Dropout(0.25)),
            nn.Linear(512, 10),
        ],
    }
    return nn.Sequential(*layers[name]()).to(memory_format=torch.channels_last)


def tensors(folder: str, split: str) -> Tensors:
    images, labels = map(torch.from_numpy, arrays(folder, split))
    return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last), labels


def main(precision: str, name: str, folder: str, turns: int, size: int) -> None:
    torch.manual_seed(42)
    model, loss = network(name), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "torch_bfloat16")

    def accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
        model.eval()
        with torch.no_grad(), autocast:
            predicted = torch.cat([model(part).argmax(1) for part in images.split(SCORING_BATCH)])
        model.train()
        return float((predicted == labels).float().mean())

    (images, labels), validation, test = (tensors(folder, split) for split in ("train", "validation", "test"))
    turn = Turns()
    for epoch in range(epochs(turns)):
        for batch in torch.randperm(len(labels))[: len(labels) // size * size].split(size):
            optimizer.zero_grad()
            with autocast:
                error = loss(model(images[batch]), labels[batch])
            error.backward()
            optimizer.step()
        accuracy(*validation)
        turn.epoch(epoch)
    turn(accuracy=accuracy(*test))


if __name__ == "__main__":
    main(*sys.argv[1:4], turns=int(sys.argv[4]), size=int(sys.argv[5]))
