"""Proof of a file with a detection tail: it finds what the reference decoder finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.core.results import Check
from edgekd.core.serialize import to_mapping
from edgekd.core.types import Artifact
from edgekd.modelfile.contract import read_contract
from edgekd.modelfile.runner import OnnxRunner
from edgekd.standalone import decoder

BOX_PX = 1e-2
SCORE = 1e-5


def check_tail(artifact: Artifact, images: NDArray[np.uint8]) -> Check:
    """Returns whether the file's detections are those of its twin without a tail, decoded by numpy.

    Args:
        artifact: Has a tail; its twin lies beside it.
        images: ``(N, H, W, C)`` letterboxed real images.
    """
    twin = artifact.path.with_name(artifact.path.name.replace("-detect.onnx", ".onnx"))
    contract = read_contract(twin)
    tailed, bare = (
        OnnxRunner(path, arithmetic=contract.arithmetic) for path in (artifact.path, twin)
    )
    threshold = read_contract(artifact.path).decoding.min_score or 0.0
    found = differing = 0
    worst_box = worst_score = 0.0
    for image in images:
        tensor = ((image.astype(np.float32) - 128) / 128).transpose(2, 0, 1)[None]
        boxes, scores, labels = tailed.run(tensor)
        wanted = decoder.detect(bare.run(tensor), to_mapping(contract), min_score=threshold)
        found += len(wanted[0])
        if not np.array_equal(labels, wanted[2]):
            differing += 1
            continue
        if len(labels):
            worst_box = max(worst_box, float(np.abs(boxes - wanted[0]).max()))
            worst_score = max(worst_score, float(np.abs(scores - wanted[1]).max()))
    passed = not differing and worst_box <= BOX_PX and worst_score <= SCORE
    return Check(
        name=f"parity/detections/{artifact.path.name}",
        passed=passed,
        figure=f"{found} detections in {len(images)} images, {differing} images differ; boxes "
        f"within {worst_box:.2g} px, scores within {worst_score:.2g}",
        criterion=f"the reference decoder's detections, boxes within {BOX_PX:g} px, scores within "
        f"{SCORE:g}",
        failing_operator=None if passed else "the detection tail",
    )
