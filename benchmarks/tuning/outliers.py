"""A network that calibration alone damages, and what tuning keeps in float to mend it.

    python benchmarks/tuning/outliers.py --work WORK

The demo's teacher gets outlier channels: in one inverted bottleneck a channel behind the expansion
and one behind the depthwise convolution are made a few hundred times larger, and what reads them as
much smaller. In float it is the same network. An activation has one scale, so that int8 loses all
but the outlier, and the gate on accuracy fails; ``--tune`` finds what to keep in float instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FACTOR = 400.0
"""How many times larger than it was."""

LIMIT = "0.3"
"""Points of mAP that int8 may lose."""


def with_outliers(source: Path, target: Path) -> str:
    """Writes a checkpoint with two outlier channels; returns the name of their block."""
    import torch

    from edgekd.nets.blocks import InvertedResidual
    from edgekd.nets.card import load_net, save_net

    net, card = load_net(source)
    blocks = [(n, m) for n, m in net.named_modules() if isinstance(m, InvertedResidual)]
    # Nothing leads past one without a residual.
    name, block = next((n, m) for n, m in blocks if not m.residual)
    chain = [m for m in block.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm, reader in zip(norms, chain[1:], strict=False):
            channel = int(norm.weight.abs().argmax())
            norm.weight[channel] *= FACTOR
            norm.bias[channel] *= FACTOR
            depthwise = reader.weight.shape[1] == 1
            reader.weight[channel if depthwise else slice(None), 0 if depthwise else channel] /= (
                FACTOR
            )
    save_net(target, net, card)
    return name


def compress(teacher: Path, data: Path, out: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """Returns the exit status of a run without training, and its report."""
    command = [
        sys.executable, "-m", "edgekd", "compress", "--target", "raspberry-pi",
        "--data", str(data), "--input", "192x256",
        "--teacher", str(teacher), "--student", "same", "--ptq", "--max-map-drop", LIMIT,
        "--out", str(out), "--torch-device", "cpu", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    path = out / "report" / "report.json"
    if not path.exists():
        raise SystemExit(f"exit status {done.returncode}: {done.stderr[-2000:]}")
    return done.returncode, json.loads(path.read_text(encoding="utf-8"))["record"]


def row(status: int, record: dict[str, Any], tuning: Path) -> dict[str, Any]:
    """Returns what a run came to."""
    files = {r["key"]: r for r in record["rows"]}
    found = {
        "exit_status": status,
        "map": {k: round(100 * r["metrics"]["map"], 2) for k, r in files.items() if r["metrics"]},
        "predicted_ms": {
            k: round(r["predicted"]["median_ms"], 2) for k, r in files.items() if r["predicted"]
        },
        "gates": [f"{g['name']} of {g['model']}: {g['found']}" for g in record["gates"]],
        "proofs": f"{sum(c['passed'] for c in record['checks'])} of {len(record['checks'])}",
    }
    if tuning.exists():
        told = json.loads(tuning.read_text(encoding="utf-8"))
        found["kept"] = told["kept"]
        found["trials"] = [
            {"kept": t["kept"], "map": round(100 * t["accuracy"], 2)} for t in told["trials"]
        ]
    return found


def main(work: Path, out: Path) -> None:
    """Runs with and without tuning and writes what came of it."""
    from edgekd.config.catalog import catalog_folder
    from edgekd.data.demo.render import write_demo_set

    work.mkdir(parents=True, exist_ok=True)
    data = write_demo_set(work / "set", train=320, val=160)
    source = catalog_folder("models") / "demo-traffic" / "teacher.safetensors"
    block = with_outliers(source, work / "outliers.safetensors")
    result: dict[str, Any] = {
        "command": "python benchmarks/tuning/outliers.py --work WORK",
        "factor": FACTOR,
        "block": block,
        "max_map_drop": float(LIMIT),
    }
    for name, teacher, flags in (
        ("as shipped", source, ()),
        ("with outliers", work / "outliers.safetensors", ()),
        ("with outliers, tuned", work / "outliers.safetensors", ("--tune",)),
    ):
        folder = work / name.replace(", ", "-").replace(" ", "-")
        status, record = compress(teacher, data, folder, *flags)
        result[name] = row(status, record, folder / "tune" / "tuning.json")
        print(name, json.dumps(result[name], indent=1), flush=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("outliers.json"))
    options = parser.parse_args()
    main(options.work, options.out)
