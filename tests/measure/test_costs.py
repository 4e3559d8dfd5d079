from __future__ import annotations

import numpy as np
import pytest

from edgekd.core.types import Precision
from edgekd.measure.costs import CLASSES, Costs, Efficiencies, Kernels, Speed, work_of
from edgekd.modelfile.operators import Geometry, Operator, OperatorKind

PLAIN = Kernels(depth=0, outputs=0, rows=0, depthwise_rows=0, group_calls=0.5)


def operator(kind: OperatorKind, shape: Geometry | None = None, macs: int = 0) -> Operator:
    return Operator(
        kind=kind, native="", name="", macs=macs, parameters=0, input_bytes=3_000_000,
        weight_bytes=2_000_000, output_bytes=1_000_000, precision=Precision.INT8,
        input_shapes=(), output_shapes=(), geometry=shape,
    )  # fmt: skip


def conv(kernel: int, stride: int = 1, groups: int = 1, inputs: int = 64) -> Operator:
    shape = Geometry(
        inputs=inputs, outputs=64, height=10, width=10, kernel=(kernel, kernel), stride=stride,
        groups=groups,
    )  # fmt: skip
    kind = OperatorKind.DEPTHWISE_CONV if groups == inputs else OperatorKind.CONV
    return operator(kind, shape, 100 * 64 * inputs // groups * kernel**2)


def work(item: Operator, kernels: Kernels = PLAIN) -> dict[str, float]:
    found = zip(CLASSES, work_of(item, kernels), strict=True)
    return {name: value for name, value in found if value}


def test_a_1x1_convolution_is_products_traffic_weights_and_a_call() -> None:
    assert work(conv(1)) == pytest.approx(
        {"dense": 0.4096, "traffic": 4.0, "weights": 2.0, "calls": 1e-3}
    )


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (conv(3, stride=2), "convolution"),
        (conv(3), "convolution"),
        (conv(3, inputs=3), "first"),
        (conv(3, groups=64), "depthwise"),
        (conv(3, stride=2, groups=64), "depthwise-strided"),
        (conv(5, stride=2, groups=64), "depthwise-large"),
        (operator(OperatorKind.FULLY_CONNECTED,
                  Geometry(inputs=8, outputs=8, height=1, width=1), 64), "vector"),
        (operator(OperatorKind.MATMUL,
                  Geometry(inputs=8, outputs=8, height=7, width=1), 448), "matrix"),
        (operator(OperatorKind.ELEMENTWISE), "elementwise"),
        (operator(OperatorKind.CONCAT), "move"),
        (operator(OperatorKind.OTHER), "move"),
    ],
)  # fmt: skip
def test_every_operator_has_its_class(item: Operator, name: str) -> None:
    products = CLASSES[: CLASSES.index("vector") + 1]
    found = work(item)
    assert name in found
    assert [n for n in products if n in found] == [name] * (item.macs > 0)


def test_patches_are_transformed_before_they_are_multiplied() -> None:
    assert work(conv(3, stride=2))["transform"] == pytest.approx(100 * 64 * 9 / 1e6)


def test_half_a_tile_of_waste_doubles_the_work() -> None:
    once = work(conv(1))["dense"]
    assert work(conv(1), Kernels(depth=64, outputs=0, rows=0))["dense"] == 2 * once
    assert work(conv(1), Kernels(depth=0, outputs=64, rows=100))["dense"] == 4 * once


def test_winograd_multiplies_less_and_transforms_and_reads_more() -> None:
    kernels = Kernels(depth=0, outputs=0, rows=0, winograd=16)
    shape = Geometry(inputs=64, outputs=64, height=12, width=12, kernel=(3, 3))
    found = work(operator(OperatorKind.CONV, shape, 144 * 64 * 64 * 9), kernels)
    # F(6,3): four tiles of 8x8 values for 12x12 outputs.
    assert found["winograd"] == pytest.approx(4 * 64 * 64 * 64 / 1e6)
    assert found["transform"] == pytest.approx(4 * 64 * 128 / 1e6)
    assert found["weights"] == pytest.approx(2.0 * 64 / 9)
    assert "winograd" not in work(operator(OperatorKind.CONV, shape, 1), PLAIN)
    narrow = Geometry(inputs=8, outputs=64, height=12, width=12, kernel=(3, 3))
    assert "winograd" not in work(operator(OperatorKind.CONV, narrow, 1), kernels)


def test_groups_are_calls_of_their_own() -> None:
    assert work(conv(3, groups=4))["calls"] == pytest.approx(1e-3 * (1 + 0.5 * 3))
    assert work(conv(3, groups=64))["calls"] == pytest.approx(1e-3)


SPEED = Speed(gmacs=10.0, depthwise_gmacs=4.0, gb_s=5.0, call_us=10.0)


def half(scatter: float = 0.05) -> Efficiencies:
    """Half of every speed, give or take a factor of 1.8."""
    size = len(CLASSES)
    mean = np.full(size, np.log(2.0))
    return Efficiencies(mean=mean, covariance=0.36 * np.eye(size), scatter=scatter)


def prior(scatter: float = 0.05) -> Costs:
    return half(scatter).at(SPEED)


def test_peaks_give_milliseconds() -> None:
    costs = prior()
    item = work_of(conv(1), PLAIN)[None]
    # 0.4096 M products at half of 10 G/s, 6 MB at half of 5 GB/s, one call of 20 us.
    expected = 0.4096 / 5 + 6 / 2.5 + 0.02
    assert costs.milliseconds(item) == pytest.approx(expected)
    assert costs.by_operator(np.repeat(item, 3, 0)) == pytest.approx([expected] * 3)


def test_depthwise_convolutions_have_a_speed_of_their_own() -> None:
    item = work_of(conv(3, groups=64), PLAIN)[None]
    # 0.0576 M products at half of 4 G/s, 6 MB at half of 5 GB/s, one call of 20 us.
    assert prior().milliseconds(item) == pytest.approx(0.0576 / 2 + 6 / 2.5 + 0.02)


def test_what_one_device_taught_holds_for_another_speed() -> None:
    rng = np.random.default_rng(5)
    true = np.log(2.0) + rng.normal(0, 0.4, len(CLASSES))
    fast = Speed(gmacs=80.0, depthwise_gmacs=20.0, gb_s=11.0, call_us=3.0)
    seen, unseen = random_work(200, 6), random_work(5, 7)
    known = half(0.0).learnt(SPEED, seen, seen @ np.exp(true + SPEED.costs()), 0.01)
    for item in unseen:
        wanted = float(item @ np.exp(true + fast.costs()))
        assert known.at(fast).milliseconds(item[None]) == pytest.approx(wanted, rel=0.01)
    deviations = [e.at(fast).deviation(unseen[:1]) for e in (known, known.loosened(0.2), half(0.0))]
    assert deviations == sorted(deviations)


def random_work(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1.0, (count, len(CLASSES)))


def test_an_update_finds_the_costs_that_made_the_latencies() -> None:
    rng = np.random.default_rng(0)
    start = prior(scatter=0.0)
    true = start.mean + rng.normal(0, 0.6, len(CLASSES))
    seen, unseen = random_work(200, 1), random_work(20, 2)
    fitted = start.updated(seen, seen @ np.exp(true), error=0.01)
    for item in unseen:
        wanted = float(item @ np.exp(true))
        assert fitted.milliseconds(item[None]) == pytest.approx(wanted, rel=0.01)
        assert fitted.deviation(item[None]) < 0.01 < start.deviation(item[None])


def test_without_latencies_nothing_is_learnt() -> None:
    start = prior()
    after = start.updated(np.empty((0, len(CLASSES))), np.empty(0), error=0.05)
    np.testing.assert_allclose(after.mean, start.mean)
    np.testing.assert_allclose(after.covariance, start.covariance)


def test_one_anchor_moves_everything_that_it_shares_a_class_with() -> None:
    start = prior(scatter=0.0)
    item = work_of(conv(1), PLAIN)[None]
    twice = 2 * start.milliseconds(item)
    after = start.updated(item, np.array([twice]), error=0.01)
    assert after.milliseconds(item) == pytest.approx(twice, rel=0.02)
    other = work_of(operator(OperatorKind.ELEMENTWISE), PLAIN)[None]
    assert after.milliseconds(other) == pytest.approx(start.milliseconds(other))


def test_one_wrong_figure_among_many_counts_for_little() -> None:
    start = prior(scatter=0.0)
    seen = random_work(60, 3)
    ms = seen @ np.exp(start.mean + 0.3)
    spoilt = ms.copy()
    spoilt[7] *= 5
    honest, fitted = (start.updated(seen, values, 0.02) for values in (ms, spoilt))
    for item in random_work(10, 4):
        wanted = honest.milliseconds(item[None])
        assert fitted.milliseconds(item[None]) == pytest.approx(wanted, rel=0.02)


def test_stated_intervals_hold_what_they_say() -> None:
    """Costs drawn from the prior, latencies with noise: nine of ten lie in the interval."""
    rng = np.random.default_rng(5)
    start, inside = prior(scatter=0.05), []
    for trial in range(60):
        true = rng.multivariate_normal(start.mean, start.covariance)
        seen, unseen = random_work(8, 100 + trial), random_work(5, 200 + trial)
        ms = seen @ np.exp(true) * np.exp(rng.normal(0, 0.05, 8))
        fitted = start.updated(seen, ms, error=0.05)
        for item in unseen:
            actual = np.log(item @ np.exp(true)) + rng.normal(0, 0.05)
            off = abs(actual - np.log(fitted.milliseconds(item[None])))
            inside.append(off <= 1.645 * fitted.deviation(item[None]))
    assert 0.84 <= np.mean(inside) <= 0.96
