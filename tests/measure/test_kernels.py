"""The catalogue of kernels and latencies: learnt from boards, checked, one's own added."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgekd.measure.kernels as kernels_module
from edgekd.config.catalog import catalog_folder
from edgekd.config.device import load_device
from edgekd.core.errors import DeviceError
from edgekd.core.types import Format, Precision
from edgekd.measure.costs import CLASSES, Kernels, Speed, work_of_all
from edgekd.measure.kernels import (
    Latencies,
    LatencySample,
    LatencySamples,
    calibration_folder,
    keep_sample,
    load_calibrations,
    load_kernels,
    load_latencies,
)
from edgekd.measure.predict import engine_speed, kernel_fills, predict_latency
from edgekd.modelfile.operators import Geometry, ModelOperators, Operator, OperatorKind

SOURCES = Path(__file__).parents[2] / "benchmarks" / "latency"
SPEED = Speed(gmacs=100.0, depthwise_gmacs=50.0, gb_s=10.0, call_us=6.0)


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SOURCES))
    import learn

    yield learn
    for name in ("learn", "population", "published", "networks", "jetsons", "gpu_networks"):
        sys.modules.pop(name, None)


def test_the_catalogue_is_what_the_published_latencies_teach(learn, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(learn, "DEVICES", tmp_path)
    learn.main()
    for folder in ("kernels", "latencies"):
        shipped = catalog_folder("devices") / folder
        written = {path.name for path in (tmp_path / folder).iterdir()}
        assert written == {path.name for path in shipped.iterdir()}
        for name in written:
            new = json.loads((tmp_path / folder / name).read_text())
            assert approximately(new) == approximately(json.loads((shipped / name).read_text()))


def approximately(document: object) -> object:
    """Returns a document with its numbers as those of another processor may differ."""
    if isinstance(document, dict):
        return {key: approximately(value) for key, value in document.items()}
    if isinstance(document, list):
        return [approximately(value) for value in document]
    return pytest.approx(document, rel=1e-2, abs=1e-3) if isinstance(document, float) else document


def test_a_population_has_the_mean_and_the_spread_of_its_boards(learn) -> None:
    population = sys.modules["population"]
    guess = population.guessed("xnnpack", Precision.INT8)
    rng, size = np.random.default_rng(0), len(CLASSES)
    true, apart = guess.mean + 0.5, 0.2
    runs = []
    for _ in range(60):
        work = rng.uniform(0.1, 1.0, (80, size)) / np.exp(true + SPEED.costs())
        mean = true + rng.normal(0, apart, size) + SPEED.costs()
        runs.append(Board(work, work @ np.exp(mean)))
    found = population.population(runs, guess)
    np.testing.assert_allclose(found.mean, true, atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), apart, atol=0.1)


class Board:
    def __init__(self, work, ms) -> None:
        self.work, self.ms = work, ms

    def teach(self, known):
        return known.learnt(SPEED, self.work, self.ms, 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["share"].pop("dense"), "share: missing dense"),
        (lambda d: d["share"].update(dens=1.0), "unknown class 'dens'; did you mean 'dense'"),
        (lambda d: d["share"].update(dense=-1.0), "share.dense: -1.0; legal: 1e-12 to"),
        (lambda d: d["covariance"].pop(), "covariance: expected 18 rows of 18 numbers"),
    ],
)
def test_a_malformed_kernel_set_is_refused_by_name(tmp_path, monkeypatch, change, message) -> None:
    document = json.loads((catalog_folder("devices") / "kernels" / "xnnpack.json").read_text())
    change(document["precisions"]["int8"])
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "xnnpack.json").write_text(json.dumps(document))
    monkeypatch.setattr(kernels_module, "catalog_folder", lambda _: tmp_path)
    with pytest.raises(DeviceError, match=message) as refused:
        load_kernels("xnnpack")
    assert "xnnpack.json" in str(refused.value)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DeviceError, match="did you mean 'raspberry-pi-4-xnnpack'"):
        load_latencies("raspberry-pi-4-xnnpac")


def network(side: int = 64) -> ModelOperators:
    shape = Geometry(inputs=64, outputs=64, height=side, width=side)
    operator = Operator(
        kind=OperatorKind.CONV, native="CONV_2D", name="", macs=side * side * 4096, parameters=4096,
        input_bytes=side * side * 64, weight_bytes=4096, output_bytes=side * side * 64,
        precision=Precision.INT8, input_shapes=(), output_shapes=(), geometry=shape,
    )  # fmt: skip
    return ModelOperators(
        path=Path("net.tflite"), format=Format.TFLITE, operators=(operator,) * 10, size_bytes=0
    )


def about(threads: int = 4, kernels: str = "xnnpack") -> Latencies:
    frame = LatencySamples(speed=SPEED, fills=Kernels(), error=0.03, networks=())
    return Latencies(
        schema=1, id=f"{kernels}-{threads}", device="board", kernels=kernels, runtime="litert",
        threads=threads, statistic="median", source="test", precisions={Precision.INT8: frame},
    )  # fmt: skip


def test_readings_are_kept_and_a_newer_one_of_the_same_network_replaces_the_older() -> None:
    work = {"dense": 10.0, "traffic": 1.0}
    for name, ms in (("one", 3.0), ("two", 4.0), ("one", 5.0)):
        path, count = keep_sample(
            "pi", about(), Precision.INT8, LatencySample(network=name, ms=ms, work=work)
        )
    assert count == 2
    assert path == calibration_folder("pi") / "xnnpack-4.json"
    (kept,) = load_calibrations("pi", "xnnpack")
    found = kept.precisions[Precision.INT8].networks
    assert [(item.network, item.ms) for item in found] == [("two", 4.0), ("one", 5.0)]
    assert load_calibrations("pi", "onnxruntime") == []


def test_readings_of_another_clock_or_another_count_of_work_are_not_mixed() -> None:
    sample = LatencySample(network="one", ms=3.0, work={"dense": 10.0})
    keep_sample("pi", about(), Precision.INT8, sample)
    other = about()
    frame = replace(other.precisions[Precision.INT8], fills=Kernels(depth=99))
    other = replace(other, precisions={Precision.INT8: frame})
    _, count = keep_sample("pi", other, Precision.INT8, replace(sample, network="two"))
    assert count == 1


def test_a_calibration_moves_the_prediction_and_narrows_it() -> None:
    device, net = load_device("raspberry-pi"), network()
    before = predict_latency(net, device)
    runtime = device.runtimes[Format.TFLITE]
    fills = kernel_fills(device, runtime, load_kernels("xnnpack").precisions[Precision.INT8])
    work = work_of_all(net.operators, fills).sum(0)
    frame = LatencySamples(
        speed=engine_speed(device, runtime, Precision.INT8, 4), fills=fills, error=0.03, networks=()
    )
    named = {name: float(value) for name, value in zip(CLASSES, work, strict=True) if value}
    sample = LatencySample(network="net", ms=1.5 * before.median_ms, work=named)
    frame_of = replace(about(), precisions={Precision.INT8: frame})
    keep_sample("raspberry-pi", frame_of, Precision.INT8, sample)
    after = predict_latency(net, device)
    assert after.median_ms == pytest.approx(1.5 * before.median_ms, rel=0.1)
    assert after.high_ms / after.low_ms < 0.7 * before.high_ms / before.low_ms
    assert (before.note, after.note) == ("uncalibrated", "calibrated with 1 network")
    other = predict_latency(net, device, threads=1)
    assert other.note == "uncalibrated"
    assert other.high_ms / other.low_ms > 1.2 * after.high_ms / after.low_ms
    larger = predict_latency(network(96), device)
    assert larger.median_ms == pytest.approx(after.median_ms * (96 / 64) ** 2, rel=0.15)
