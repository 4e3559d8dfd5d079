from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd.config import device as device_module
from edgekd.config.device import Device, list_devices, load_device
from edgekd.core.errors import DeviceError, RecipeError
from edgekd.core.types import Format, Precision

TARGETS = ("android", "host", "jetson", "jetson-nano", "raspberry-pi", "raspberry-pi-4")


def own(folder: Path, name: str, old: str, new: str) -> Path:
    """Returns a copy of a shipped profile with one change."""
    text = (device_module.catalog_folder("devices") / f"{name}.yaml").read_text("utf-8")
    assert old in text
    path = folder / f"{name}.yaml"
    path.write_text(text.replace(old, new), "utf-8")
    return path


def test_catalogue_is_listed_by_id() -> None:
    ids = [device.id for device in list_devices()]
    assert ids == sorted(ids)
    assert set(TARGETS) <= set(ids)


@pytest.mark.parametrize("device", list_devices(), ids=lambda device: device.id)
def test_every_source_that_a_fact_names_is_listed(device: Device) -> None:
    facts = [*device.cpu, device.gpu, device.memory, device.power_mode, *device.accelerators]
    named = {key for fact in facts if fact for key in re.findall(r"\[(\w+)\]", fact.source)}
    assert named <= set(device.sources)


def test_alias_and_path_find_the_same_profile() -> None:
    assert load_device("pi5") is load_device("raspberry-pi")
    path = device_module.catalog_folder("devices") / "raspberry-pi.yaml"
    assert load_device(path) == load_device("raspberry-pi")


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(DeviceError, match=r"unknown device 'jetsn'; did you mean 'jetson'\?"):
        load_device("jetsn")


def test_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"mine\.yaml: cannot be read"):
        load_device(tmp_path / "mine.yaml")


def test_jetson_nano_refuses_int8_with_the_reason() -> None:
    nano = load_device("jetson-nano")
    nano.require(Format.ONNX, Precision.FLOAT16)
    with pytest.raises(RecipeError) as caught:
        nano.require(Format.ONNX, Precision.INT8)
    message = str(caught.value)
    assert "'jetson-nano' refuses onnx int8: the Maxwell GPU has no int8 arithmetic" in message
    assert "legal: onnx float32, onnx float16" in message
    with pytest.raises(RecipeError, match=r"JetPack 4 .* Python 3.6"):
        nano.require(Format.TFLITE, Precision.INT8)


def test_schemes_follow_the_runtime() -> None:
    jetson, host, board = (load_device(name) for name in ("jetson", "host", "raspberry-pi"))
    assert jetson.quantization.activation_symmetry == "symmetric"
    assert jetson.runtime.name == "tensorrt"
    assert host.quantization.activation_dtype_onnx == "uint8"
    assert board.quantization.activation_dtype_onnx == "int8"
    logistic = board.quantization.fixed_outputs["logistic"]
    assert (logistic.scale, logistic.zero_point) == (1 / 256, -128)
    assert board.quantization.scale_floor == 2**-12
    assert load_device("jetson-nano").quantization.opset == 13


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_ghz: 2.4", "clok_ghz: 2.4", r"cpu\[0\]: unknown key 'clok_ghz'; did you mean 'cl"),
        ("cores: 4", "cores: four", r"cpu\[0\]\.cores: expected a whole number, got 'four'"),
        ("schema: 1", "schema: 2", "schema: illegal value 2"),
        ("int8_kernel: sdot", "int8_kernel: sdott", "int8_kernel: illegal value 'sdott'; did you"),
        ("primary: tflite", "primary: tflight", "primary: illegal value 'tflight'; did you mean"),
        ("transfer: 0.25", "transfer: 1.5", r"tflite\.relatives\[0\]: transfer: 1.5; legal"),
        ("[float32, int8]", "[float32]", "onnx int8 is neither allowed nor refused"),
        ("kernels: xnnpack", "kernel: xnnpack", "unknown key 'kernel'; did you mean 'kernels'"),
        ("[float32, int8]", "[int8]", "every runtime executes float32"),
        ("\nid: raspberry-pi\n", "\n", "missing key 'id'"),
    ],
)
def test_malformed_profile_names_file_key_and_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        load_device(own(tmp_path, "raspberry-pi", old, new))
    assert str(caught.value).startswith(str(tmp_path / "raspberry-pi.yaml"))


def test_pair_both_allowed_and_refused_is_an_error(tmp_path: Path) -> None:
    path = own(tmp_path, "jetson-nano", "precision: int8\n", "precision: float16\n")
    with pytest.raises(DeviceError, match="onnx float16 is both allowed and refused"):
        load_device(path)


def test_prediction_without_peaks_is_an_error(tmp_path: Path) -> None:
    path = own(tmp_path, "jetson-nano", "gpu:\n", "unused:\n")
    text = path.read_text("utf-8")
    start, end = text.index("unused:"), text.index("memory:")
    path.write_text(text[:start] + text[end:], "utf-8")
    with pytest.raises(DeviceError, match=r"predictions\.onnx: no peaks of a gpu"):
        load_device(path)


def like(folder: Path, text: str) -> Device:
    path = folder / "mine.yaml"
    path.write_text(f"schema: 1\nid: mine\n{text}")
    return load_device(path)


FACTS = """name: Mine
description: A board of my own
cpu:
- {name: big, cores: 4, uarch: Cortex-A73, clock_ghz: 2.0, int8_kernel: mlal, fp32_ops_per_cycle: 8,
   fp16_ops_per_cycle: null, int8_ops_per_cycle: 16, source: mine}
memory: {theoretical_gb_s: null, copied_gb_s: 3.0, source: mine}
power_mode: {name: default, note: none, source: mine}
sources: {OWN: mine}
"""


def test_a_profile_takes_the_rules_of_one_that_it_is_like_but_no_fact(tmp_path: Path) -> None:
    other, mine = load_device("raspberry-pi-4"), like(tmp_path, f"like: raspberry-pi-4\n{FACTS}")
    assert mine.quantization == other.quantization
    assert mine.runtimes == other.runtimes
    assert (mine.threads, mine.refused) == (other.threads, other.refused)
    assert (mine.aliases, mine.gpu, mine.predictions) == ((), None, {})
    assert mine.sources == {**other.sources, "OWN": "mine"}
    assert like(tmp_path, f"like: raspberry-pi-4\nthreads: 2\n{FACTS}").threads == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raspberry-pi-5x", "like: 'raspberry-pi-5x' is no other profile; did you mean"),
        ("raspberry-pi-3", "like: 'raspberry-pi-3' has no rules of its own"),
        ("../devices/jetson", "is no other profile"),
    ],
)
def test_a_profile_is_like_one_of_the_catalogue(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        like(tmp_path, f"like: {name}\n{FACTS}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("copied_gb_s: 3.0", "copied_gb_s: null", "one of theoretical_gb_s and copied_gb_s"),
        (
            "source: mine}\nmemory",
            "source: mine, reached: 1.5}\nmemory",
            "reached: 1.5; legal: more",
        ),
        ("sources:", "predictions: {onnx: {kernels: x}}\nsources:", "missing key 'basis'"),
    ],
)
def test_facts_of_ones_own_are_checked(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FACTS
    with pytest.raises(DeviceError, match=message):
        like(tmp_path, f"like: raspberry-pi-4\n{FACTS.replace(old, new)}")


def test_two_profiles_may_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, "raspberry-pi", "rpi5", "rpi5")
    own(tmp_path, "raspberry-pi-4", "rpi4", "rpi5")
    monkeypatch.setattr(device_module, "catalog_folder", lambda kind: tmp_path)
    with pytest.raises(DeviceError, match="'rpi5' is already a name of 'raspberry-pi'"):
        list_devices()


def test_file_name_and_id_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, "host", "id: host", "id: hosts")
    monkeypatch.setattr(device_module, "catalog_folder", lambda kind: tmp_path)
    with pytest.raises(DeviceError, match="id: expected the file's name 'host', got 'hosts'"):
        list_devices()
