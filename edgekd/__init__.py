"""EdgeKD: distil, quantize, export and prove compact vision models for edge devices."""

import os

# ONNX Runtime reports its use to its makers, on Linux too, unless this is set before it is loaded;
# libraries that come with the converters do so where they are asked to load something by name.
# Children inherit it. Nothing leaves the machine.
for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[_switch] = "1"

__version__ = "0.1.0"
