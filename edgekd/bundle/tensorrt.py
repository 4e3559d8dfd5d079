"""How TensorRT is given the files: the ``trtexec`` line of each version, and which file to take.

Sources: operator sets from ``docs/operators.md`` of onnx-tensorrt (8.2-GA, 8.5-GA) and NVIDIA's
release notes of 10.3 and opset guide of 11; flags from ``trtexec --help`` of those versions and
NVIDIA's guide to migrating trtexec from 10 to 11, which removed every flag of precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """One generation of TensorRT.

    Attributes:
        opset: Newest ONNX operator set that its parser knows.
        int8: Flags for a file with Q/DQ.
        half: Flags for a network in float16.
        half_file: Which file that is: older versions round float32 themselves.
    """

    name: str
    opset: int
    int8: str
    half: str
    half_file: str


VERSIONS = (
    Version(name="8.2", opset=13, int8="--int8 --fp16", half="--fp16", half_file="float.onnx"),
    Version(name="8.5", opset=17, int8="--int8 --fp16", half="--fp16", half_file="float.onnx"),
    Version(
        name="10.3",
        opset=20,
        int8="--stronglyTyped",
        half="--stronglyTyped",
        half_file="float16.onnx",
    ),
    Version(name="11", opset=25, int8="", half="", half_file="float16.onnx"),
)


def trtexec_lines(names: Sequence[str], opset: int) -> list[tuple[str, str]]:
    """Returns version and command for every version that parses the files.

    Args:
        names: Files in the bundle's ``models`` folder.
        opset: Operator set of those files.
    """
    lines = []
    for version in VERSIONS:
        if version.opset < opset:
            continue
        for file, flags, engine in (
            ("int8.onnx", version.int8, "int8"),
            (version.half_file, version.half, "float16"),
        ):
            if file in names and (engine == "int8" or "float16.onnx" in names):
                words = ["trtexec", f"--onnx=models/{file}", flags, f"--saveEngine={engine}.engine"]
                lines.append((version.name, " ".join(word for word in words if word)))
    return lines
