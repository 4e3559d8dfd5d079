"""The modules of the distillation methods, by the names in `edgekd.config.methods`.

A method is an ``nn.Module`` that takes a `DistillationBatch` and returns one scalar, unweighted.
What it learns itself (projectors, say) it builds from the level pairs it is given. Adding a method
is one class, one line here and one entry in `edgekd.config.methods`; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from edgekd.config.methods import method_options
from edgekd.distill import dense, features, relations, response
from edgekd.distill.batch_context import LevelPair

MODULES: dict[str, type[nn.Module]] = {
    "soft-labels": response.SoftLabels,
    "hard-labels": response.HardLabels,
    "logit-matching": response.LogitMatching,
    "dkd": response.DecoupledLabels,
    "hints": features.Hints,
    "attention": features.Attention,
    "pkd": features.Pearson,
    "cwd": features.ChannelWise,
    "mgd": features.MaskedGeneration,
    "rkd": relations.Distances,
    "similarity": relations.Similarity,
    "logits": dense.ScoreWeightedLogits,
    "boxes": dense.ScoreWeightedBoxes,
    "dense-soft-labels": dense.DenseSoftLabels,
    "dense-logit-matching": dense.DenseLogitMatching,
    "localization": dense.Localization,
    "crosskd": dense.CrossHead,
    "teacher-boxes": dense.TeacherBoxes,
    "raw-outputs": response.RawOutputs,
}


def build_method(name: str, options: Mapping[str, float], pairs: Sequence[LevelPair]) -> nn.Module:
    """Returns the module of a method, its initial weights from torch's global generator.

    Raises:
        RecipeError: The method, or an option of it, is unknown or out of range.
    """
    merged = method_options(name, options)
    return MODULES[name](pairs, **merged)
