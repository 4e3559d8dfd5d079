"""What teachers say, asked now and asked before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.config.sections import Augmentation
from edgekd.core.progress import SilentProgress
from edgekd.data.dataset import load
from edgekd.data.demo.render import CLASSES
from edgekd.data.loader import ViewStream, batches
from edgekd.nets.card import Card, build, save_net
from edgekd.teacher.cache import TeacherCache, live_outputs, open_cache
from edgekd.teacher.frozen import NetTeacher, load_teacher
from edgekd.training.teacher_output import TeacherOutput

CPU = torch.device("cpu")
KINDS = ("outputs", "features", "detections")
VIEWS = 2


class Counting(NetTeacher):
    """Counts the images that it was shown, and can die on one."""

    seen = 0
    dies_after: int | None = None

    def teacher_output(self, images: torch.Tensor, kinds: Collection[str]) -> TeacherOutput:
        self.seen += len(images)
        if self.dies_after is not None and self.seen > self.dies_after:
            raise KeyboardInterrupt
        return super().teacher_output(images, kinds)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "t.safetensors"
    card = Card(
        architecture="edgedet-n", classes=CLASSES, height=96, width=128, strides=(8, 16, 32)
    )
    net = build(card, seed=3)
    for branch in net.scores:  # Fresh, it is sure that there is nothing.
        torch.nn.init.zeros_(branch.last.bias)
    save_net(path, net, card)
    return path


def teacher(path: Path) -> Counting:
    found = load_teacher(path)
    found.__class__ = Counting
    return found  # type: ignore[return-value]


@pytest.fixture
def stream(small_set: Path) -> ViewStream:
    return ViewStream(
        dataset=load(small_set, "train"),
        size=(64, 64),
        channels=3,
        augmentation=Augmentation(mosaic=0.5),
        seed=1,
        views=VIEWS,
        teacher_resolution=(96, 128),
    )


def cache(who: NetTeacher, stream: ViewStream, folder: Path, views: int = VIEWS) -> TeacherCache:
    return open_cache(
        [who],
        stream,
        KINDS,
        [folder],
        views=views,
        progress=SilentProgress(),
        device=CPU,
        precision="float32",
        batch_size=5,
    )


def test_a_cached_lesson_is_the_live_one_in_half_precision(
    checkpoint: Path, stream: ViewStream, tmp_path: Path
) -> None:
    kept = cache(teacher(checkpoint), stream, tmp_path)
    reading = replace(stream, teacher_resolution=None, teacher_outputs=kept)
    steps = 2 * VIEWS * 12 // 4  # Twice through all views: the second time they come again.
    pairs = zip(
        batches(stream, batch_size=4, start=0, steps=steps, workers=0),
        batches(reading, batch_size=4, start=0, steps=steps, workers=0),
        strict=True,
    )
    for asked, remembered in pairs:
        assert torch.equal(asked.images, remembered.images)
        (live,) = live_outputs([teacher(checkpoint)], asked, KINDS)
        (old,) = kept.teacher_outputs(remembered)
        for a, b in zip(
            (*live.outputs, *live.features), (*old.outputs, *old.features), strict=True
        ):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(
            live.detections.boxes, old.detections.boxes, atol=0.02, rtol=1e-3
        )
        assert torch.equal(live.detections.labels, old.detections.labels)
    assert kept.size_bytes == sum(store.size_bytes for store in kept.stores) > 0


def test_objects_are_in_the_students_pixels(checkpoint: Path, stream: ViewStream) -> None:
    batch = next(batches(stream, batch_size=4, start=0, steps=1, workers=0))
    small, large = (
        live_outputs([teacher(checkpoint)], b, ("detections",))[0].detections
        for b in (replace(batch, images=batch.teacher_views, teacher_views=None), batch)
    )
    factor = 96 / 64  # 64 x 64 in 96 x 128.
    torch.testing.assert_close(large.boxes * factor, small.boxes)
    assert (large.labels >= 0).any()


def test_filling_goes_on_where_it_was_interrupted(
    checkpoint: Path, stream: ViewStream, tmp_path: Path
) -> None:
    dying = teacher(checkpoint)
    dying.dies_after = 16  # One to learn the shapes, then 5, 5 and 2: the first view of all.
    with pytest.raises(KeyboardInterrupt):
        cache(dying, stream, tmp_path)
    heir = teacher(checkpoint)
    kept = cache(heir, stream, tmp_path)
    assert heir.seen == VIEWS * 12 - 12
    whole = cache(teacher(checkpoint), stream, tmp_path / "whole")
    for view in range(VIEWS):
        for index in range(12):
            for a, b in zip(kept.read(view, index), whole.read(view, index), strict=True):
                assert a.tobytes() == b.tobytes()


class Neighbourly(NetTeacher):
    """What it says about an image depends on those beside it, as in truth in the last bit."""

    def teacher_output(self, images: torch.Tensor, kinds: Collection[str]) -> TeacherOutput:
        return super().teacher_output(images + images.mean(), kinds)


def test_holes_are_filled_with_what_was_there_before(
    checkpoint: Path, stream: ViewStream, tmp_path: Path
) -> None:
    who = teacher(checkpoint)
    who.__class__ = Neighbourly
    cache(who, stream, tmp_path)
    files = sorted(tmp_path.rglob("*.bin"))
    before = [path.read_bytes() for path in files]
    for sums in tmp_path.rglob("checksums.bin"):
        blob = bytearray(sums.read_bytes())
        for number in (3, 4, 11, 17):
            blob[4 * number : 4 * number + 4] = bytes(4)
        sums.write_bytes(bytes(blob))
    cache(who, stream, tmp_path)
    assert [path.read_bytes() for path in files] == before


def test_a_full_cache_needs_no_teacher_in_memory_and_grows_by_new_views_only(
    checkpoint: Path, stream: ViewStream, tmp_path: Path
) -> None:
    cache(teacher(checkpoint), stream, tmp_path, views=1)
    idle = teacher(checkpoint)
    cache(idle, stream, tmp_path, views=1)
    assert idle.seen == 0
    assert not idle.in_memory
    cache(idle, stream, tmp_path, views=2)
    assert idle.seen == 12


def test_a_grey_teacher_sees_the_luma_of_colour(tmp_path: Path) -> None:
    card = Card(architecture="edgedet-n", classes=CLASSES, height=64, width=64, channels=1)
    save_net(tmp_path / "grey.safetensors", build(card, seed=0), card)
    pixels = torch.tensor([200.0, 100.0, 50.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    seen = load_teacher(tmp_path / "grey.safetensors").renormalise((pixels - 128) / 128)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    torch.testing.assert_close(seen, torch.full((1, 1, 64, 64), (luma - 128) / 128))
