"""Distillation methods that compare the class logits of two classifiers.

Options have their defaults in `edgekd.config.methods`; a class says what it computes and who
proposed it. ``z`` are logits ``(B, C)``, ``p`` probabilities; ``_s`` is the student, ``_t`` the
teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.core.types import Task
from edgekd.distill.batch_context import DistillationBatch, LevelPair
from edgekd.distill.method import register_method

T = TypeVar("T")


def required(value: T | None, what: str) -> T:
    """Returns ``value``.

    Raises:
        ValueError: It is None or an empty tuple: the signal does not have what the method needs.
    """
    if value is None or (isinstance(value, tuple) and not value):
        raise ValueError(f"this method needs {what}, which the signal does not have")
    return value


@register_method(
    "soft-labels",
    tasks={Task.CLASSIFICATION},
    needs={"logits"},
    weight=1.0,
    options={"temperature": 4.0},
    cost="nothing; caches one number a class",
    source="Hinton et al., arXiv 1503.02531",
    summary="the teacher's whole class distribution, softened",
)
class SoftLabels(nn.Module):
    """Kullback-Leibler divergence of softened class distributions, 0 where student = teacher.

    T^2 sum_c p_t log(p_t / p_s) with p = softmax(z / T), averaged over images. T^2 because the
    gradients of softened logits shrink with 1/T^2. Summed over classes (``batchmean``): dividing by
    their number as well would weaken the teacher where there are many.

    Hinton, Vinyals and Dean, arXiv 1503.02531.
    """

    def __init__(self, _pairs: Sequence[LevelPair], *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' class logits."""
        student, teacher = (
            functional.log_softmax(logits / self.temperature, dim=1)
            for logits in _class_logits(given)
        )
        return _divergence(student, teacher).mean() * self.temperature**2


@register_method(
    "raw-outputs",
    tasks=set(Task),
    needs={"outputs"},
    weight=1.0,
    cost="nothing; caches raw outputs",
    source="Ba and Caruana, arXiv 1312.6184, over every output tensor",
    summary="every raw output of the same network in full precision, whatever it means",
)
class RawOutputs(nn.Module):
    """Squared error of every raw output over that output's variance, averaged over outputs.

    mean_i mean((o_s - o_t)^2) / var(o_t), so that boxes in pixels weigh no more than logits. For a
    network that shall only become integer: what its outputs mean need not be known.

    Ba and Caruana, arXiv 1312.6184, for logits.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' raw outputs."""
        student = required(given.student_outputs, "the student's raw outputs")
        told = required(given.teacher_outputs, "the raw outputs of the same network")
        teacher = [output.detach() for output in told]
        terms = [
            (ours - theirs).square().mean() / theirs.var(correction=0).clamp(min=1e-6)
            for ours, theirs in zip(student, teacher, strict=True)
        ]
        return torch.stack(terms).mean()


@register_method(
    "hard-labels",
    tasks={Task.CLASSIFICATION},
    needs={"logits"},
    weight=1.0,
    cost="nothing; caches one number a class",
    source="Touvron et al., arXiv 2012.12877",
    summary="the class that the teacher thinks best, as if annotated",
)
class HardLabels(nn.Module):
    """Cross-entropy with the class that the teacher thinks best, averaged over images.

    -log p_s[argmax_c z_t]. It asks for certainty: its infimum 0 is reached where the student is
    sure of the teacher's choice, not where student = teacher (there it is -log max_c p_t).

    Hard-label distillation, Touvron et al., arXiv 2012.12877, section 4; a pseudo-label in Lee,
    ICML 2013 workshop on challenges in representation learning.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' class logits."""
        student, teacher = _class_logits(given)
        return functional.cross_entropy(student, teacher.argmax(dim=1))


@register_method(
    "logit-matching",
    tasks={Task.CLASSIFICATION},
    needs={"logits"},
    weight=0.2,
    cost="nothing; caches one number a class",
    source="Ba and Caruana, arXiv 1312.6184",
    summary="the teacher's logits themselves, by squared error",
)
class LogitMatching(nn.Module):
    """Mean squared error of mean-centred logits, 0 where student = teacher.

    mean_bc ((z_s - mean_c z_s) - (z_t - mean_c z_t))^2. The paper regresses the logits as they are.
    Centred here, because softmax does not see what is added to all of an image's logits, so that
    the teacher's offset is an accident that a small student should not spend its weights on.

    Ba and Caruana, arXiv 1312.6184.
    """

    def __init__(self, _pairs: Sequence[LevelPair]) -> None:
        super().__init__()

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' class logits."""
        student, teacher = _class_logits(given)
        difference = student - teacher
        return (difference - difference.mean(dim=1, keepdim=True)).square().mean()


@register_method(
    "dkd",
    tasks={Task.CLASSIFICATION},
    needs={"logits", "labels"},
    weight=0.1,
    options={"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
    cost="nothing; caches one number a class",
    source="Zhao et al., arXiv 2203.08679",
    summary="soft labels with the resemblance of wrong classes weighted on its own",
)
class DecoupledLabels(nn.Module):
    """DKD: soft labels split into the target class and the others, 0 where student = teacher.

    T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)), averaged over the annotated images: b is the
    pair (p of the annotated class, p of all others), q the softmax over the others alone. Plain
    soft labels weigh the second part with 1 - p_t[target], that is with next to nothing wherever
    the teacher is sure; here beta sets it. Images without a class (a negative label) are left out.

    Zhao, Cui, Song, Qiu and Liang, arXiv 2203.08679.
    """

    def __init__(
        self, _pairs: Sequence[LevelPair], *, alpha: float, beta: float, temperature: float
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, given: DistillationBatch) -> Tensor:
        """Returns the loss; needs both networks' class logits and annotation."""
        labels = given.batch.labels[:, 0]
        annotated = labels >= 0
        student, teacher = (
            _decoupled(logits[annotated] / self.temperature, labels[annotated])
            for logits in _class_logits(given)
        )
        chosen, others = (_divergence(s, t) for s, t in zip(student, teacher, strict=True))
        total = (self.alpha * chosen + self.beta * others).sum()
        return total / annotated.sum().clamp(min=1) * self.temperature**2


def _class_logits(given: DistillationBatch) -> tuple[Tensor, Tensor]:
    student = required(given.student_logits, "the student's class logits")
    teacher = required(given.teacher_logits, "the teacher's class logits")
    return student.float(), teacher.detach().float()


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns KL(teacher || student) of log-probabilities, summed over the last axis."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def _decoupled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities of (target, not target), ``(N, 2)``, and of the others alone.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` target class.
    """
    count, classes = logits.shape
    target = functional.one_hot(labels, classes).bool()
    chosen = logits[target].view(count, 1)
    others = logits[~target].view(count, classes - 1)
    # Through logsumexp: log(1 - p) of a p that rounds to 1 would be infinite.
    either = torch.cat((chosen, others.logsumexp(dim=1, keepdim=True)), dim=1)
    return functional.log_softmax(either, dim=1), functional.log_softmax(others, dim=1)
