"""Distillation methods that compare how the images of a batch relate to each other.

Both see a feature through its mean over positions, ``x`` of ``(B, C)``, and compare numbers of
images with images: channel counts and resolutions may differ, nothing is projected. All products
are float32: the relations of near-identical images are differences of large numbers. A batch of one
image has no relations; its loss is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import Task
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import register_method
from edgekd.distill.methods.features import paired_features

_SHORTEST = 1e-6
"""Length below which a vector counts as zero: it has no direction, and gets no gradient."""


class RelationMethod(nn.Module):
    """Mean over pairs of `compare` on pooled features."""

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' features."""
        pairs = paired_features(given)
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            terms = [self.compare(s.mean((2, 3)), t.mean((2, 3))) for s, t in pairs]
        return torch.stack(terms).mean()

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the scalar loss of one pair of pooled features, ``(B, C_s)`` and ``(B, C_t)``."""
        raise NotImplementedError


@register_method(
    "rkd",
    tasks=set(Task),
    needs={"features"},
    weight=3.0,
    options={"distance": 1.0, "angle": 2.0},
    cost="memory with the batch size cubed; caches features",
    source="Park et al., arXiv 1904.05068",
    summary="distances and angles between the images of a batch",
)
class Distances(RelationMethod):
    """RKD: distances between two images and angles among three, 0 where student = teacher.

    ``distance`` mean_ij huber(d_s - d_t) + ``angle`` mean_ijk huber(a_s - a_t): d_ij = |x_i - x_j|
    over the mean of those that are not 0, so that the scale of a feature does not matter; a_ijk is
    the cosine of the angle at j between i and k. The means run over all i, j (and k), equal ones
    included: showing every image twice changes nothing.

    Park, Kim, Lu and Cho, arXiv 1904.05068.
    """

    def __init__(self, _pairs: Sequence[LevelPair], *, distance: float, angle: float) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of one pair."""
        (ours, our_angles), (theirs, their_angles) = _geometry(student), _geometry(teacher)
        distance = functional.smooth_l1_loss(ours, theirs)
        return self.distance * distance + self.angle * functional.smooth_l1_loss(
            our_angles, their_angles
        )


@register_method(
    "similarity",
    tasks=set(Task),
    needs={"features"},
    weight=8.0,
    cost="next to nothing; caches features",
    source="Tung and Mori, arXiv 1907.09682",
    summary="which images of a batch resemble each other",
)
class Similarity(RelationMethod):
    """Squared distance of the rows of two similarity matrices, 0 where student = teacher.

    mean_i |g_s,i - g_t,i|^2 with g_i = row i of x x^T, divided by its length; between 0 and 4. The
    paper divides by B^2 and not by B. A row of unit length has elements of about 1/sqrt(B), so that
    the value would shrink with the batch, and the weight that suits grow with it.

    Tung and Mori, arXiv 1907.09682, on flattened features; here they are pooled, which does not
    compare an object's place in one image with that in another.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss of one pair."""
        difference = _directions(student @ student.T) - _directions(teacher @ teacher.T)
        return difference.square().sum(1).mean()


def _geometry(points: Tensor) -> tuple[Tensor, Tensor]:
    """Returns normalised distances ``(B, B)`` and cosines ``(B, B, B)``, the corner first."""
    edges = points - points.unsqueeze(1)  # [j, i] leads from j to i.
    lengths = torch.linalg.vector_norm(edges, dim=-1)
    mean = lengths.sum() / (lengths > 0).sum().clamp(min=1)
    units = _directions(edges)
    return lengths / mean.clamp(min=_SHORTEST), units @ units.mT


def _directions(vectors: Tensor) -> Tensor:
    """Returns the vectors along the last axis at length 1, those of no length as 0."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths.clamp(min=_SHORTEST) * (lengths > _SHORTEST)
