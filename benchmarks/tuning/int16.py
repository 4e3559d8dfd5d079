"""What LiteRT takes for int16 activations: why tuning keeps a layer in float32 and not in int16.

    python benchmarks/tuning/int16.py

``edgedet-n`` with random weights at 256x320, calibrated on noise by ai-edge-quantizer, whose
recipes have both: int8 weights with int8 and with int16 activations. Latency depends on neither
weights nor images. One thread; the three files take turns.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

from edgekd.core.files import write_atomic
from edgekd.core.host import conditions
from edgekd.nets.backbone import scale_of
from edgekd.nets.detector import EdgeDet

SHAPE = (1, 1, 256, 320)
ROUNDS = 30


def main() -> None:
    """Writes ``int16.json`` beside this file."""
    torch.manual_seed(0)
    net = EdgeDet(scale=scale_of("edgedet-n", "edgedet"), classes=4, channels=1).eval()
    source = litert_torch.convert(net, (torch.zeros(SHAPE),)).model_content()
    opened = {"float32": _interpreter(source)}
    ((signature, names),) = opened["float32"].get_signature_list().items()
    noise = np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)).astype(np.float32)
    images = {signature: [{names["inputs"][0]: image} for image in noise]}
    for name, choice in (("int8", recipe.static_wi8_ai8()), ("int16", recipe.static_wi8_ai16())):
        quantized = quantizer.Quantizer(source, choice)
        opened[name] = _interpreter(quantized.quantize(quantized.calibrate(images)).quantized_model)
    taken: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, interpreter in opened.items():
            began = time.perf_counter()
            interpreter.invoke()
            taken[name].append(1e3 * (time.perf_counter() - began))
    found = {
        "conditions": conditions(),
        "command": "python benchmarks/tuning/int16.py",
        "measured_ms_median": {name: round(float(np.median(t)), 3) for name, t in taken.items()},
        "measured_ms_least": {name: round(min(t), 3) for name, t in taken.items()},
    }
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _interpreter(content: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=bytes(content), num_threads=1)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()
    return interpreter


if __name__ == "__main__":
    main()
