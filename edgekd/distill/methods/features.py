"""Distillation methods that compare features, for detectors and classifiers alike.

Options have their defaults in `edgekd.config.methods`; a class says what it computes and who
proposed it. ``F`` are features ``(B, C, H, W)``; ``_s`` is the student, ``_t`` the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import Task
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import register_method
from edgekd.distill.methods.response import required


def projectors(pairs: Sequence[LevelPair]) -> nn.ModuleList:
    """Returns what brings a student's features to the teacher's channels: 1x1 convolutions.

    Where the channels agree it is the identity: an extra layer would only stand between the
    teacher and what ships.
    """
    return nn.ModuleList(
        nn.Identity()
        if pair.student_channels == pair.teacher_channels
        else nn.Conv2d(pair.student_channels, pair.teacher_channels, 1)
        for pair in pairs
    )


def paired_features(given: DistillationBatch) -> list[tuple[Tensor, Tensor]]:
    """Returns the (student, teacher) features of each pair in float32, the teacher's detached.

    Raises:
        ValueError: The signal has none.
    """
    ours = required(given.student_features, "the student's features")
    theirs = required(given.teacher_features, "the teacher's features")
    return [(s.float(), t.detach().float()) for s, t in zip(ours, theirs, strict=True)]


class FeatureMethod(nn.Module):
    """Mean over pairs of `compare`, after the student's feature took on the teacher's shape.

    A 1x1 projector joins other channel counts, and is trained with the student and thrown away;
    bilinear resizing joins other resolutions. "Student = teacher" below is said of that result.
    """

    def __init__(self, pairs: Sequence[LevelPair]) -> None:
        super().__init__()
        self.projectors = projectors(pairs)

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' features."""
        return torch.stack([self.compare(s, t) for s, t in self.aligned(given)]).mean()

    def aligned(self, given: DistillationBatch) -> list[tuple[Tensor, Tensor]]:
        """Returns (student, teacher) of each pair, both of the teacher's shape."""
        return [
            (_resized(projector(student), teacher), teacher)
            for projector, (student, teacher) in zip(
                self.projectors, paired_features(given), strict=True
            )
        ]

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the scalar loss of one pair of features ``(B, C, H, W)``."""
        raise NotImplementedError


@register_method(
    "hints",
    tasks=set(Task),
    needs={"features"},
    weight=1.0,
    cost="a 1x1 projector a level; caches features",
    source="FitNets, Romero et al., arXiv 1412.6550",
    summary="the teacher's features, by squared error over their energy",
)
class Hints(FeatureMethod):
    """Squared error of features over the teacher's energy, 0 where student = teacher.

    mean (F_s - F_t)^2 / mean F_t^2: 1 for a student that says nothing. The paper's plain error
    grows with the square of the teacher's activations, whose size is an accident of its last
    normalisation, and so would be the weight that suits; divided by a constant of the teacher, the
    loss has the same minimum, and levels of different size count alike.

    FitNets, Romero et al., arXiv 1412.6550.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the relative squared error of one pair."""
        return _relative_error(student, teacher)


@register_method(
    "pkd",
    tasks=set(Task),
    needs={"features"},
    weight=4.0,
    cost="a 1x1 projector a level; caches features",
    source="Cao et al., arXiv 2207.02039",
    summary="the pattern of the teacher's features, whatever their scale",
)
class Pearson(FeatureMethod):
    """PKD: mean squared error of features after each channel is normalised over the batch.

    Equals 1 - Pearson correlation, averaged over channels, so that it asks for the pattern and not
    for the teacher's scale; 0 where student = teacher. Mean and variance of a channel are taken
    over images and positions.

    Cao et al., arXiv 2207.02039.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns one minus the mean correlation of one pair."""
        return (_standardised(student) - _standardised(teacher)).square().mean() / 2


@register_method(
    "cwd",
    tasks=set(Task),
    needs={"features"},
    weight=4.0,
    options={"temperature": 4.0},
    cost="a 1x1 projector a level; caches features",
    source="Shu et al., arXiv 2011.13256",
    summary="where each channel of the teacher is active",
)
class ChannelWise(FeatureMethod):
    """CWD: divergence of where each channel is active, 0 where student = teacher.

    T^2 sum_i q_t log(q_t / q_s) with q = softmax over positions i of F / T, averaged over channels
    and images. T^2 because the gradients of a softened map shrink with 1/T^2.

    Shu, Liu, Gao, Yan and Shen, arXiv 2011.13256.
    """

    def __init__(self, pairs: Sequence[LevelPair], *, temperature: float) -> None:
        super().__init__(pairs)
        self.temperature = temperature

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the divergence of one pair."""
        ours, theirs = (
            functional.log_softmax(feature.flatten(2) / self.temperature, dim=-1)
            for feature in (student, teacher)
        )
        return (theirs.exp() * (theirs - ours)).sum(-1).mean() * self.temperature**2


@register_method(
    "mgd",
    tasks=set(Task),
    needs={"features"},
    weight=1.0,
    options={"mask": 0.5},
    cost="a projector and two 3x3 convolutions a level: slow; caches features",
    source="Yang et al., arXiv 2205.01529",
    summary="the teacher's features, generated from the student's with positions blanked",
)
class MaskedGeneration(FeatureMethod):
    """MGD: the teacher's feature is generated from the student's with random positions blanked.

    Relative squared error, as in `Hints`, of G(M F_s) and F_t: M blanks the share ``mask`` of the
    positions of all channels, new ones every step (torch's global generator), and G is a 3x3
    convolution, ReLU and another, trained with the student and thrown away. What is behind a blank
    must be told from its surroundings, so 0 is only a bound: it is not reached at student =
    teacher.

    Yang, Li, Shao, Shi, Yuan and Yuan, arXiv 2205.01529; there the error is summed, not relative.
    """

    def __init__(self, pairs: Sequence[LevelPair], *, mask: float) -> None:
        super().__init__(pairs)
        self.mask = mask
        self.generators = nn.ModuleList(_generator(pair.teacher_channels) for pair in pairs)

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' features."""
        terms = []
        for generator, (student, teacher) in zip(self.generators, self.aligned(given), strict=True):
            kept = torch.rand_like(student[:, :1]) >= self.mask
            terms.append(_relative_error(generator(student * kept), teacher))
        return torch.stack(terms).mean()


@register_method(
    "attention",
    tasks=set(Task),
    needs={"features"},
    weight=2.0,
    cost="next to nothing; caches features",
    source="Zagoruyko and Komodakis, arXiv 1612.03928",
    summary="where in the image the teacher's features have their energy",
)
class Attention(nn.Module):
    """Squared distance of where two features have their energy, 0 where student = teacher.

    |a_s / |a_s| - a_t / |a_t||^2, averaged over images and pairs, with a = mean_c F^2 as a vector
    over positions: 2 - 2 cos, between 0 and 2. Summed over positions, where published code averages
    over them and makes up for it with a weight of 1000. No projector: the channels are summed up.

    Zagoruyko and Komodakis, arXiv 1612.03928.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' features."""
        terms = []
        for student, teacher in paired_features(given):
            energy = teacher.square().mean(1, keepdim=True)
            ours = _resized(student.square().mean(1, keepdim=True), energy)
            difference = functional.normalize(ours.flatten(1)) - functional.normalize(
                energy.flatten(1)
            )
            terms.append(difference.square().sum(1).mean())
        return torch.stack(terms).mean()


def _generator(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


def _resized(feature: Tensor, like: Tensor) -> Tensor:
    if feature.shape[2:] == like.shape[2:]:
        return feature
    return functional.interpolate(feature, like.shape[2:], mode="bilinear", align_corners=False)


def _relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean() / (teacher.square().mean() + 1e-6)


def _standardised(feature: Tensor) -> Tensor:
    """Returns ``(C, B*H*W)``: zero mean and unit variance a channel; a constant channel is 0."""
    rows = feature.transpose(0, 1).flatten(1)
    centred = rows - rows.mean(dim=1, keepdim=True)
    # Inside the root: that of a constant channel would have no gradient but NaN.
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-12).sqrt()
