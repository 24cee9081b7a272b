"""Training on the simulated device: two spirals, a small network, the same run on plain torch.

Both gradients of a layer are products of the device too. Prints forward and backward cycles and
draws both loss curves: python examples/train.py [--out DIR] [--steps N]
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn

import shmgemm

TOLERANCE = 1e-3  # between the two loss curves, at every step


def two_spirals(points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`points` places in the plane on each of two arms, with noise; the label is the arm."""
    radius = torch.rand(2 * points).sqrt()
    label = torch.arange(2 * points) % 2
    angle = 3 * torch.pi * radius + torch.pi * label
    places = torch.stack([angle.cos(), angle.sin()], dim=1) * radius.unsqueeze(1)
    return places + 0.02 * torch.randn_like(places), label


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
    )


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> list[float]:
    """The loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def draw(path: Path, simulated: list[float], plain: list[float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(plain, color="#bbbbbb", linewidth=4, label="plain torch")
    axes.plot(simulated, color="#0072b2", linewidth=1.2, label="simulated device")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy loss")
    axes.set_ylim(bottom=0)
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on the simulated device.")
    parser.add_argument("--out", type=Path, default=Path("out/train"))
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()

    torch.manual_seed(0)
    x, y = two_spirals(128)
    model = network()
    reference = copy.deepcopy(model)
    plain = train(reference, x, y, options.steps)

    with shmgemm.open(strict=True), shmgemm.profile() as prof:
        shmgemm.offload_(model)
        simulated = train(model, x, y, options.steps)

    forward = sum(op.cycles for op in prof.records if op.name == "linear")
    backward = prof.cycles - forward
    difference = max(abs(a - b) for a, b in zip(simulated, plain, strict=True))
    print(prof.table())
    print(prof.coverage)
    print(f"loss {simulated[0]:.4f} -> {simulated[-1]:.4f}")
    per_step = (forward // options.steps, backward // options.steps)
    print(f"cycles per step: forward {per_step[0]:,}, backward {per_step[1]:,}")
    print(f"largest difference from plain torch's loss curve: {difference:.1e}")
    assert difference <= TOLERANCE, difference
    assert simulated[-1] < 0.5 * simulated[0]

    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "loss.png", simulated, plain)
    print(f"wrote {options.out / 'loss.png'}")


if __name__ == "__main__":
    main()
