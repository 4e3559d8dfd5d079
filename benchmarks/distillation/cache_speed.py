"""What the cache of teacher outputs saves: steps a second live, from the cache, without a teacher.

    python benchmarks/distillation/cache_speed.py --data $EDGEKD_DATA/hit_uav --work WORK

Teacher and student are those of the recipe that ships for HIT-UAV: the teacher is twenty times the
student's size and sees each view in four times the pixels. The three run in turn in one process, so
that a busy machine slows all; starting up is taken out by the difference of a long and a short run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from experiment import CPU, RESULTS
from hit_uav import MODEL

from edgekd.config.device import load_device
from edgekd.config.recipe import load_recipe, override
from edgekd.core.files import write_atomic
from edgekd.core.host import cpu_model
from edgekd.core.progress import SilentProgress
from edgekd.nets import cost
from edgekd.nets.tap import TappedNet
from edgekd.run.context import RunContext, open_context
from edgekd.run.directory import RunDirectory
from edgekd.run.fit import fit_student
from edgekd.teacher.frozen import NetTeacher
from edgekd.training.precision import resolved

SHORT, LONG, ROUNDS = 10, 60, 5
CACHE_VIEWS = {"live": 0, "cached": 1, "no teacher": 0}


def seconds(context: RunContext, steps: int, folder: Path, *, taught: bool) -> float:
    """Returns how long so many steps take, starting up included."""
    shutil.rmtree(folder, ignore_errors=True)
    net = context.student.fresh(context.progress.note)
    options = replace(context.recipe.distill.training, steps=steps, checkpoint_s=3600)
    began = time.monotonic()
    tapped = TappedNet(net, net.taps).train()
    methods = context.methods if taught else {}
    fit_student(context, tapped, methods, options, folder=folder, title="speed")
    return time.monotonic() - began


def main(data: Path, work: Path) -> None:
    """Measures the three in turn and writes ``results/cache-speed.json``."""
    recipe = override(
        load_recipe(MODEL / "recipes" / "default.yaml"),
        {"data.path": str(data), "teacher.cache": str(work / "speed-cache")},
    )
    with RunDirectory(work / "speed") as run:
        shops = {
            name: open_context(
                override(recipe, {"teacher.cache_views": views}),
                load_device("raspberry-pi"),
                run,
                SilentProgress(),
                CPU,
            )
            for name, views in CACHE_VIEWS.items()
        }
        batch_size = recipe.distill.training.batch_size
        views = len(shops["live"].train.samples)
        if views < LONG * batch_size:
            raise SystemExit(f"{views} images; {LONG} steps would see some of them twice")
        filling = seconds(shops["cached"], LONG, run.path / "fill", taught=True)
        filling -= seconds(shops["cached"], LONG, run.path / "fill", taught=True)
        rates: dict[str, list[float]] = {name: [] for name in shops}
        for _ in range(ROUNDS):
            for name, context in shops.items():
                long, short = (
                    seconds(context, steps, run.path / "speed", taught=name != "no teacher")
                    for steps in (LONG, SHORT)
                )
                rates[name].append((LONG - SHORT) / (long - short))
                print(name, f"{rates[name][-1]:.2f} steps/s", flush=True)
    teacher = shops["live"].teachers[0]
    parameters = cost.parameters(teacher.network()) if isinstance(teacher, NetTeacher) else 0
    gain, cost_of_reading = (
        [round(a / b, 2) for a, b in zip(rates["cached"], rates[name], strict=True)]
        for name in ("live", "no teacher")
    )
    record_bytes = sum(p.stat().st_size for p in (work / "speed-cache").rglob("*.bin"))
    result = {
        "command": "python benchmarks/distillation/cache_speed.py --data $EDGEKD_DATA/hit_uav",
        "processor": cpu_model(),
        "threads": torch.get_num_threads(),
        "precision": resolved(CPU, recipe.distill.training.precision),
        "batch_size": batch_size,
        "teacher_parameters": parameters,
        "student_parameters": cost.parameters(shops["live"].blank_student()),
        "steps_per_s": {name: [round(v, 3) for v in values] for name, values in rates.items()},
        "cached_to_live": gain,
        "cached_to_live_median": statistics.median(gain),
        "cached_to_no_teacher": cost_of_reading,
        "cached_to_no_teacher_median": statistics.median(cost_of_reading),
        "filling_seconds_per_view": round(filling / views, 4),
        "bytes_per_view": round(record_bytes / views),
        "views": views,
    }
    write_atomic(RESULTS / "cache-speed.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    main(options.data, options.work)
