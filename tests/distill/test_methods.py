"""What holds for every method, whatever it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from edgekd.core.errors import RecipeError
from edgekd.core.types import Task
from edgekd.data.loader import Batch
from edgekd.distill.batch_context import DetectionBatch, DistillationBatch, LevelPair
from edgekd.distill.method import build_method, methods
from edgekd.training.assigner import TaskAlignedAssigner
from edgekd.training.detection import DensePredictions, dense_predictions

METHODS = methods()
ALL = sorted(METHODS)
CELLS = ((8, 8), (4, 4))
SAME = (LevelPair(0, 0, 10, 10), LevelPair(1, 1, 10, 10))
NARROW = (LevelPair(0, 0, 6, 10), LevelPair(1, 1, 6, 10))
NOT_ZERO_AT_THE_TEACHER = {"hard-labels", "mgd", "teacher-boxes"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Network:
    """Free tensors in the place of a network: raw outputs, features and class logits."""

    outputs: list[Tensor]
    features: list[Tensor]
    logits: Tensor

    def tensors(self) -> list[Tensor]:
        return [*self.outputs, *self.features, self.logits]


class Head(nn.Module):
    """A frozen head: one 1x1 convolution a level."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.levels = nn.ModuleList(nn.Conv2d(10, 7, 1) for _ in CELLS)
        self.requires_grad_(False)

    def forward(self, index: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = self.levels[index](feature).split((3, 4), dim=1)
        return 2 * scores, boxes


HEAD = Head()


def features(seed: int, batch: int, channels: int, cells=CELLS) -> list[Tensor]:
    """Low-rank in the channels and smooth over space, as the features of a network are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, 4, generator=generator)
    coarse = [torch.randn(batch, 4, min(2, h), min(2, w), generator=generator) for h, w in cells]
    smooth = [
        nn.functional.interpolate(c, size, mode="bilinear", align_corners=True)
        for c, size in zip(coarse, cells, strict=True)
    ]
    return [torch.einsum("oc,bchw->bohw", mix, s).contiguous() for s in smooth]


def make_student(seed: int, batch: int = 4, channels: int = 10, cells=CELLS) -> Network:
    generator = torch.Generator().manual_seed(seed)
    outputs = [torch.randn(batch, c, h, w, generator=generator) for h, w in cells for c in (3, 4)]
    maps = [torch.randn(batch, channels, h, w, generator=generator) for h, w in cells]
    return Network(outputs, maps, torch.randn(batch, 5, generator=generator))


def make_teacher(seed: int, batch: int = 4, cells=CELLS) -> Network:
    """Its outputs are what its head makes of its features."""
    maps = features(seed, batch, 10, cells)
    outputs = [o for index, feature in enumerate(maps) for o in HEAD(index, feature)]
    logits = torch.randn(batch, 5, generator=torch.Generator().manual_seed(seed))
    return Network(outputs, maps, 2 * logits)


def annotation(batch: int) -> Batch:
    box = torch.tensor([[8.0, 8.0, 36.0, 30.0], [40.0, 34.0, 60.0, 58.0]])
    nothing = torch.zeros(batch, 0)
    return Batch(
        torch.zeros(batch, 3, 64, 64),
        box.repeat(batch, 1, 1),
        torch.tensor([[1, 2]]).repeat(batch, 1),
        nothing.unsqueeze(-1).expand(-1, -1, 4),
        nothing.long(),
    )


def teacher_detections(teacher: DensePredictions) -> DetectionBatch:
    """The two boxes of an image that the teacher is surest of, and one row of padding."""
    best, labels = teacher.logits.detach().sigmoid().max(-1)
    scores, cells = best.topk(min(2, best.shape[1]), dim=1)
    padding = torch.zeros(len(best), 1)
    return DetectionBatch(
        torch.cat((teacher.boxes.detach()[torch.arange(len(best)).unsqueeze(1), cells],
                   padding.unsqueeze(-1).expand(-1, -1, 4)), dim=1),
        torch.cat((labels.gather(1, cells), padding.long() - 1), dim=1),
        torch.cat((scores, padding), dim=1),
    )  # fmt: skip


def make_signal(student: Network, teacher: Network, pairs=SAME) -> DistillationBatch:
    sizes = tuple((o.shape[2], o.shape[3]) for o in student.outputs[::2])
    strides = [64 // height for height, _ in sizes]
    batch = annotation(len(student.logits))
    seen = dense_predictions(student.outputs, strides)
    told = dense_predictions(teacher.outputs, strides)
    return DistillationBatch(
        batch=batch,
        pairs=pairs,
        student_features=tuple(student.features),
        teacher_features=tuple(teacher.features),
        student=seen,
        teacher=told,
        sizes=sizes,
        visible=torch.ones_like(seen.logits, dtype=torch.bool),
        target=TaskAlignedAssigner()(
            probabilities=seen.logits.detach().sigmoid(),
            boxes=seen.boxes.detach(),
            centres=seen.centres,
            strides=seen.strides,
            objects=batch.boxes,
            labels=batch.labels,
            ignore=batch.ignore,
            ignore_labels=batch.ignore_labels,
        ),
        detections=teacher_detections(told),
        head=HEAD,
        student_logits=student.logits,
        student_outputs=(*student.outputs, student.logits),
        teacher_outputs=(*teacher.outputs, teacher.logits),
        teacher_logits=teacher.logits,
    )


def build(name: str, pairs=SAME, **options: float) -> nn.Module:
    torch.manual_seed(0)
    return build_method(name, options, pairs)


def gradients(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return [g for g in torch.autograd.grad(loss, tensors, allow_unused=True) if g is not None]


def test_an_unknown_method_or_option_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="did you mean 'pkd'"):
        build_method("pdk", {}, SAME)
    with pytest.raises(RecipeError, match="has no option 'gama'"):
        build_method("logits", {"gama": 1.0}, SAME)


@pytest.mark.parametrize("name", ALL)
def test_a_signal_without_what_is_needed_says_what(name: str) -> None:
    with pytest.raises(ValueError, match=r"this method needs the (student|teacher)'s "):
        build(name)(DistillationBatch(batch=annotation(2)))


@pytest.mark.parametrize("name", ALL)
def test_what_the_catalogue_says_is_needed_is_enough(name: str) -> None:
    full = make_signal(make_student(1), make_teacher(2))
    fields = {
        "outputs": ("teacher_outputs",),
        "logits": ("teacher_logits",),
        "dense-predictions": ("teacher",),
        "features": ("teacher_features",),
        "head": ("head",),
        "detections": ("detections",),
        "labels": ("target",),
    }
    missing = {f for need, fs in fields.items() if need not in METHODS[name].needs for f in fs}
    bare = replace(full, **{f: () if f == "teacher_features" else None for f in missing})
    assert torch.isfinite(build(name)(bare))


@pytest.mark.parametrize("name", sorted(set(ALL) - NOT_ZERO_AT_THE_TEACHER))
def test_it_is_zero_where_student_is_teacher_and_positive_elsewhere(name: str) -> None:
    teacher = make_teacher(2)
    assert build(name)(make_signal(teacher, teacher)).item() == pytest.approx(0, abs=1e-5)
    assert build(name)(make_signal(make_student(1), teacher)).item() > 0.01


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_goes_to_the_student_only(name: str) -> None:
    student, teacher = make_student(1), make_teacher(2)
    given = make_signal(student, teacher)
    for tensor in (*student.tensors(), *teacher.tensors(), given.detections.scores):
        tensor.requires_grad_()
    given = replace(make_signal(student, teacher), detections=given.detections)
    build(name)(given).backward()
    assert any(t.grad is not None and t.grad.abs().sum() > 0 for t in student.tensors())
    assert all(t.grad is None for t in (*teacher.tensors(), given.detections.scores))
    assert all(p.grad is None for p in HEAD.parameters())


def without_objects(_batch: int) -> DistillationBatch:
    given = make_signal(make_student(1), make_teacher(2))
    none = replace(annotation(4), boxes=torch.zeros(4, 0, 4), labels=torch.full((4, 1), -1))
    empty = replace(
        given.target,
        scores=torch.zeros_like(given.target.scores),
        weights=torch.zeros_like(given.target.weights),
    )
    detections = DetectionBatch(
        torch.zeros(4, 0, 4), torch.zeros(4, 0, dtype=torch.long), torch.zeros(4, 0)
    )
    return replace(given, batch=none, target=empty, detections=detections)


def all_hidden(_batch: int) -> DistillationBatch:
    given = make_signal(make_student(1), make_teacher(2))
    return replace(given, visible=torch.zeros_like(given.visible))


def one_cell(batch: int) -> DistillationBatch:
    cells = ((1, 1),)
    return make_signal(make_student(1, batch, cells=cells), make_teacher(2, batch, cells), SAME[:1])


def identical_rows(_batch: int) -> DistillationBatch:
    student = make_student(1, 1)
    rows = Network(
        [o.repeat(4, 1, 1, 1) for o in student.outputs],
        [f.repeat(4, 1, 1, 1) for f in student.features],
        student.logits.repeat(4, 1),
    )
    return make_signal(rows, make_teacher(2))


def constant_features(_batch: int) -> DistillationBatch:
    student = make_student(1)
    return make_signal(
        replace(student, features=[f * 0 for f in student.features]), make_teacher(2)
    )


def huge(_batch: int) -> DistillationBatch:
    student, teacher = make_student(1), make_teacher(2)
    return make_signal(
        Network(*([1e4 * t for t in part] for part in (student.outputs, student.features)),
                1e4 * student.logits),
        Network(*([1e4 * t for t in part] for part in (teacher.outputs, teacher.features)),
                1e4 * teacher.logits),
    )  # fmt: skip


def tensors_of(given: DistillationBatch) -> list[Tensor]:
    return [
        given.student.logits,
        given.student.boxes,
        given.student_logits,
        *given.student_features,
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("case", "batch"),
    [
        (without_objects, 4),
        (all_hidden, 4),
        (one_cell, 4),
        (one_cell, 1),
        (identical_rows, 4),
        (constant_features, 4),
        (huge, 4),
    ],
)
def test_loss_and_gradient_stay_finite(name: str, case, batch: int) -> None:
    given = case(batch)
    tensors = tensors_of(given)
    for tensor in tensors:
        tensor.requires_grad_()
    pairs = given.pairs
    loss = build(name, pairs)(given)
    assert torch.isfinite(loss)
    assert loss.item() > -1e-3
    assert all(torch.isfinite(g).all() for g in gradients(loss, tensors))


@pytest.mark.parametrize("name", ALL)
def test_showing_every_image_twice_changes_nothing(name: str) -> None:
    student, teacher = make_student(1), make_teacher(2)
    options = {"mask": 0.0} if name == "mgd" else {}  # Blanks are drawn anew for every image.

    def twice(network: Network) -> Network:
        return Network(
            [torch.cat((o, o)) for o in network.outputs],
            [torch.cat((f, f)) for f in network.features],
            torch.cat((network.logits, network.logits)),
        )

    once = build(name, **options)(make_signal(student, teacher))
    double = build(name, **options)(make_signal(twice(student), twice(teacher)))
    assert double.item() == pytest.approx(once.item(), rel=1e-4)


@pytest.mark.parametrize("name", [n for n in ALL if METHODS[n].tasks == {Task.DETECTION}])
def test_what_is_hidden_neither_teaches_nor_dilutes(name: str) -> None:
    student, teacher = make_student(1), make_teacher(2)
    given = make_signal(student, teacher)
    visible = given.visible.clone()
    visible[:, ::2] = False
    given = replace(given, visible=visible)
    moved = replace(
        given.teacher,
        logits=torch.where(visible, given.teacher.logits, 4.0),
        boxes=torch.where(visible[..., :1], given.teacher.boxes, 1.0),
    )
    loss = build(name)(given)
    assert loss.item() > 0.01
    assert build(name)(replace(given, teacher=moved)).item() == pytest.approx(loss.item())
    assert build(name)(all_hidden(4)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_alone_it_falls_tenfold_in_200_steps(name: str) -> None:
    """Measured above 0, which every method can come near here.

    The student is free tensors, so that nothing but the method decides; its projectors learn too.
    For teacher-boxes 0 is reached where scores and boxes are what assignment asks of them, which
    moves with the student: the loss is a divergence, without the targets' own entropy. mgd draws
    new blanks every step, and the fewer they are the lower is the floor of what can be guessed.
    """
    options = {"mask": 0.15} if name == "mgd" else {}
    student, teacher = make_student(1, channels=6), make_teacher(2)
    method = build(name, NARROW, **options)
    tensors = [t.requires_grad_() for t in student.tensors()]
    optimizer = torch.optim.Adam([*tensors, *method.parameters()], 0.03)
    losses = []
    for _ in range(200):
        loss = method(make_signal(student, teacher, NARROW))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.01
    assert sum(losses[-5:]) / 5 < losses[0] / 10


@pytest.mark.parametrize("name", ALL)
def test_what_it_learns_itself_is_the_same_for_the_same_seed(name: str) -> None:
    first, second = (dict(build(name, NARROW).named_parameters()) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert bool(first) == (name in {"hints", "pkd", "cwd", "mgd", "crosskd"})
