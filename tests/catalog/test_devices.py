"""Every profile in devices/ loads, and holds what the others rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edgekd.config.catalog import catalog_folder
from edgekd.config.device import Device, load_device
from edgekd.core.errors import DeviceError
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Format, Precision
from edgekd.measure.predict import latency_model

PROFILES = sorted(catalog_folder("devices").glob("*.yaml"))
CITATION = re.compile(r"\[([A-Z]+)\]")


@pytest.fixture(params=PROFILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def device(path: Path) -> Device:
    return load_device(path)


def test_plain_form_reads_back_as_the_same_profile(device: Device) -> None:
    assert from_mapping(Device, to_mapping(device), device.id, DeviceError) == device


def test_every_citation_is_explained_and_every_source_is_cited(device: Device, path: Path) -> None:
    facts, _, sources = path.read_text("utf-8").partition("\nsources:")
    cited = set(CITATION.findall(facts))
    assert cited == set(yaml.safe_load(f"sources:{sources}")["sources"])
    assert cited <= set(device.sources)


def test_every_fact_has_a_source(device: Device) -> None:
    stated = [device.power_mode.source, device.quantization.source]
    stated += [item.source for item in (*device.cpu, *device.runtimes.values())]
    stated += [item.source for item in (device.gpu, device.memory) if item is not None]
    stated += [item.basis for item in device.predictions.values()]
    assert all(stated)


def test_what_a_prediction_names_exists(device: Device) -> None:
    for model_format in device.predictions:
        known = latency_model(device, model_format)
        assert known is not None
        assert set(known.costs) == set(device.runtimes[model_format].precisions)


def test_every_pair_is_allowed_or_refused_with_a_reason(device: Device) -> None:
    assert all(len(item.reason) > 20 for item in device.refused)
    assert device.allows(device.primary, Precision.FLOAT32)
    for model_format in device.runtimes:
        device.require(model_format, Precision.FLOAT32)


def test_fixed_outputs_are_those_of_the_tflite_specification(device: Device) -> None:
    if device.primary is not Format.TFLITE:
        return
    fixed = {
        name: (item.scale, item.zero_point)
        for name, item in device.quantization.fixed_outputs.items()
    }
    assert fixed == {
        "logistic": (1 / 256, -128),
        "softmax": (1 / 256, -128),
        "tanh": (1 / 128, 0),
        "l2_norm": (1 / 128, 0),
        "log_softmax": (16 / 256, 127),
    }


def test_kernel_class_agrees_with_the_rates(device: Device) -> None:
    for cluster in device.cpu:
        gain = {"mlal": 2, "sdot": 4, "i8mm": 8}[cluster.int8_kernel]
        assert cluster.int8_ops_per_cycle == gain * cluster.fp32_ops_per_cycle


def test_clusters_are_ordered_fastest_first(device: Device) -> None:
    speeds = [cluster.clock_ghz * cluster.fp32_ops_per_cycle for cluster in device.cpu]
    assert speeds == sorted(speeds, reverse=True)
