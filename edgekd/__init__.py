"""EdgeKD: distil, quantize, export and prove compact vision models for edge devices.

    import edgekd

    run = edgekd.compress(data="boats", teacher="teacher.safetensors", target="raspberry-pi")
    print(run.report.rows, run.files["int8.tflite"], run.bundle)

Everything here is imported when it is first asked for: ``import edgekd`` loads neither torch nor a
runtime. `edgekd.api` documents the functions.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime reports its use to its makers, on Linux too, unless this is set before it is loaded;
# libraries that come with the converters do so where they are asked to load something by name.
# Children inherit it. Nothing leaves the machine.
for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[_switch] = "1"

__version__ = "0.2.0"

if TYPE_CHECKING:
    from edgekd.api.callbacks import Callback, MLflowLogger, TensorBoardLogger
    from edgekd.api.catalogues import list_devices, load_recipe, read_dataset
    from edgekd.api.models import Model, benchmark, create_model, evaluate, list_models, load
    from edgekd.api.runs import Run, TrainedModel, compress, train
    from edgekd.config.decoders import register_decoder, unregister_decoder
    from edgekd.core.errors import EdgeKDError
    from edgekd.core.types import Dataset, Problem, Sample, Task
    from edgekd.data.cleaning import (
        AnnotatedImage,
        AnnotatedObject,
        ReadRequest,
        assemble_dataset,
    )
    from edgekd.data.reader import register_reader, unregister_reader
    from edgekd.distill.batch_context import DistillationBatch
    from edgekd.distill.method import register_method, unregister_method

_PLACES = {
    "edgekd.api.callbacks": ("Callback", "MLflowLogger", "TensorBoardLogger"),
    "edgekd.api.catalogues": ("list_devices", "load_recipe", "read_dataset"),
    "edgekd.api.models": ("Model", "benchmark", "create_model", "evaluate", "list_models", "load"),
    "edgekd.api.runs": ("Run", "TrainedModel", "compress", "train"),
    "edgekd.config.decoders": ("register_decoder", "unregister_decoder"),
    "edgekd.core.errors": ("EdgeKDError",),
    "edgekd.core.types": ("Dataset", "Problem", "Sample", "Task"),
    "edgekd.data.cleaning": (
        "AnnotatedImage",
        "AnnotatedObject",
        "ReadRequest",
        "assemble_dataset",
    ),
    "edgekd.data.reader": ("register_reader", "unregister_reader"),
    "edgekd.distill.batch_context": ("DistillationBatch",),
    "edgekd.distill.method": ("register_method", "unregister_method"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "AnnotatedImage",
    "AnnotatedObject",
    "Callback",
    "Dataset",
    "DistillationBatch",
    "EdgeKDError",
    "MLflowLogger",
    "Model",
    "Problem",
    "ReadRequest",
    "Run",
    "Sample",
    "Task",
    "TensorBoardLogger",
    "TrainedModel",
    "assemble_dataset",
    "benchmark",
    "compress",
    "create_model",
    "evaluate",
    "list_devices",
    "list_models",
    "load",
    "load_recipe",
    "read_dataset",
    "register_decoder",
    "register_method",
    "register_reader",
    "train",
    "unregister_decoder",
    "unregister_method",
    "unregister_reader",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of every public kind
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
