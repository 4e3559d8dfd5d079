"""Makes a small finished run: python .ci/small_run.py TARGET FOLDER writes FOLDER/TARGET."""

import subprocess
import sys
from pathlib import Path

from edgekd.data.demo.render import CLASSES, write_demo_set
from edgekd.nets.card import Card, build, save_net

target, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
data = write_demo_set(folder / "set", train=12, val=8)
card = Card(architecture="edgedet-s", classes=CLASSES, height=96, width=128)
save_net(folder / "teacher.safetensors", build(card, seed=3), card)
subprocess.run(
    [
        Path(sys.executable).with_name("edgekd"), "compress", "--target", target, "--data", data,
        "--teacher", folder / "teacher.safetensors", "--input", "96x128", "--steps", "6",
        "--qat-steps", "4", "--batch-size", "4", "--torch-device", "cpu", "--out", folder / target,
        "--set", "export.proof_images=4", "--set", "benchmark.bootstrap=100",
        "--set", "benchmark.runs=50", "--set", "benchmark.seconds=0",
        "--set", "quantize.calibration_images=8", "--set", "report.visualisations=2",
        "--set", "student.strides=[8,16]",
    ],
    check=True,
)  # fmt: skip
