"""MNIST: the experiment of Hinton, Vinyals and Dean (arXiv 1503.02531, section 3), with our losses.

    python benchmarks/distillation/mnist.py --data $EDGEKD_DATA/mnist --work WORK

A teacher of two hidden layers of 1200 units on images moved by up to two pixels, turned, stretched
and bent: eighty epochs of these, where the paper's has dropout, weight constraints and many more; a
student of two layers of 800 without any regularisation, trained on labels alone, with the teacher's
soft labels at T = 20, and with soft labels of a transfer set that holds no 3. The nets are those of
``benchmarks/own_nets/mlp.py``, the loss is EdgeKD's ``soft-labels``; images fit in memory, so the
loop here is a plain one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.files import write_atomic
from edgekd.data.dataset import load
from edgekd.data.image import read_image
from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DistillationBatch
from edgekd.distill.method import build_method
from edgekd.training.allocator import keep_freed_memory

HERE = Path(__file__).parent
ABSENT = 3
TEMPERATURE = 20.0
BATCH = 200


def images_and_labels(data: Path, split: str, cache: Path) -> tuple[Tensor, Tensor]:
    """Returns images ``(N, 1, 28, 28)`` in [0, 1] and labels ``(N,)``."""
    dataset = load(data, split, cache=cache)
    pixels = np.stack([read_image(s, 1) for s in dataset.samples])
    labels = np.array([int(s.labels[0]) for s in dataset.samples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)


def jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns every image moved by up to two pixels each way, turned, stretched and bent.

    Up to 10 degrees and 12 per cent; the bend is smooth noise of one pixel (Simard, Steinkraus and
    Platt, Best practices for convolutional neural networks, 2003). Black moves in.
    """
    count, half = len(images), images.shape[-1] / 2

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    angle, stretch, shift = (
        uniform() * math.radians(10),
        1 + 0.12 * uniform(2),
        uniform(2) * 2 / half,
    )
    cos, sin = angle.cos(), angle.sin()
    columns = (
        torch.stack((cos, sin), 1) * stretch[:, :1],
        torch.stack((-sin, cos), 1) * stretch[:, 1:],
        shift,
    )
    grid = functional.affine_grid(torch.stack(columns, 2), list(images.shape), align_corners=False)
    noise = torch.randn(count, 2, 6, 6, generator=generator) / half
    bend = functional.interpolate(noise, images.shape[2:], mode="bicubic", align_corners=False)
    return functional.grid_sample(images, grid + bend.permute(0, 2, 3, 1), align_corners=False)


def train(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    epochs: int,
    rate: float,
    seed: int,
    jitter: bool = False,
    title: str,
) -> None:
    """Trains a net in place with Adam, the rate falling to zero along half a cosine.

    ``loss`` maps logits, labels and the indices of the images to a scalar.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), rate, fused=True)
    steps, done, began = epochs * (len(images) // BATCH), 0, time.monotonic()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH)[: len(images) // BATCH]:
            seen = jittered(images[chosen], generator) if jitter else images[chosen]
            value = loss(net(seen), labels[chosen], chosen)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            done += 1
        if epoch % 10 == 9 or epoch == epochs - 1:
            spent = time.monotonic() - began
            print(
                f"{title} epoch {epoch + 1}/{epochs} loss {value.item():.4f} {spent:.0f} s",
                flush=True,
            )
    net.eval()


def by_labels(logits: Tensor, labels: Tensor, _chosen: Tensor) -> Tensor:
    """Returns the cross-entropy against annotation."""
    return functional.cross_entropy(logits, labels)


def by_teacher(teacher_logits: Tensor, label_weight: float) -> Callable[..., Tensor]:
    """Returns the loss of soft labels, with a little of the true labels beside it."""
    method = build_method("soft-labels", {"temperature": TEMPERATURE}, ())
    empty = torch.empty(0)
    batch = Batch(empty, empty, empty, empty, empty)

    def loss(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
        given = DistillationBatch(
            batch=batch, student_logits=logits, teacher_logits=teacher_logits[chosen]
        )
        return method(given) + label_weight * functional.cross_entropy(logits, labels)

    return loss


@torch.no_grad()
def outputs(net: nn.Module, images: Tensor) -> Tensor:
    """Returns the logits of every image."""
    return torch.cat([net(part) for part in images.split(2000)])


def errors(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Returns test errors, and the share of threes that are right."""
    right = logits.argmax(1) == labels
    return {
        "errors": int((~right).sum()),
        "threes_right": round(100 * float(right[labels == ABSENT].float().mean()), 2),
    }


def corrected(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns what to add to the logit of the absent class.

    The value with the fewest errors on the *training* images, threes included: the paper chose it
    on the test set.
    """
    logits = outputs(net, images)
    candidates = np.arange(0, 12.01, 0.1)
    return float(min(candidates, key=lambda b: errors(raised(logits, b), labels)["errors"]))


def raised(logits: Tensor, by: float) -> Tensor:
    """Returns the logits with the absent class raised."""
    moved = logits.clone()
    moved[:, ABSENT] += by
    return moved


def nets() -> ModuleType:
    """Returns the module that defines the nets."""
    path = HERE.parent / "own_nets" / "mlp.py"
    specification = importlib.util.spec_from_file_location("mlp", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main(data: Path, work: Path, teacher_epochs: int, epochs: int, seeds: list[int]) -> None:
    """Runs the whole experiment and writes ``results/mnist.json``."""
    keep_freed_memory()
    train_images, train_labels = images_and_labels(data, "train", work)
    test_images, test_labels = images_and_labels(data, "test", work)
    mlp = nets()
    torch.manual_seed(0)
    teacher = mlp.build_teacher()
    saved = work / f"mnist-teacher-{teacher_epochs}.pt"
    if saved.exists():
        teacher.load_state_dict(torch.load(saved, weights_only=True))
        teacher.eval()
    else:
        train(
            teacher, train_images, train_labels, loss=by_labels, epochs=teacher_epochs, rate=1e-3,
            seed=0, jitter=True, title="teacher",
        )  # fmt: skip
        torch.save(teacher.state_dict(), saved)
    taught = outputs(teacher, train_images)
    kept = train_labels != ABSENT
    result: dict[str, Any] = {
        "command": "python benchmarks/distillation/mnist.py --data $EDGEKD_DATA/mnist --work WORK",
        "teacher_epochs": teacher_epochs,
        "epochs": epochs,
        "temperature": TEMPERATURE,
        "teacher": errors(outputs(teacher, test_images), test_labels),
        "published": {
            "teacher": 67, "student": 146, "student with soft labels": 74,
            "without threes": 206, "without threes, bias corrected": 109,
        },
        "rows": [],
    }  # fmt: skip
    print("teacher", result["teacher"], flush=True)
    for seed in seeds:
        for name in ("student", "student with soft labels", "without threes"):
            torch.manual_seed(seed)
            net = mlp.build_student()
            some = kept if name == "without threes" else torch.ones_like(kept)
            loss = by_labels if name == "student" else by_teacher(taught[some], 0.1)
            train(
                net, train_images[some], train_labels[some], loss=loss, epochs=epochs, rate=1e-3,
                seed=seed, title=f"{name}, seed {seed}",
            )  # fmt: skip
            logits = outputs(net, test_images)
            rows = {name: errors(logits, test_labels)}
            if name == "without threes":
                by = corrected(net, train_images, train_labels)
                rows[f"{name}, bias corrected"] = {
                    **errors(raised(logits, by), test_labels), "correction": round(by, 1)
                }  # fmt: skip
            for row, found in rows.items():
                result["rows"].append({"row": row, "seed": seed, **found})
                print(row, found, flush=True)
            write_atomic(HERE / "results" / "mnist.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--teacher-epochs", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    main(options.data, options.work, options.teacher_epochs, options.epochs, options.seeds)
