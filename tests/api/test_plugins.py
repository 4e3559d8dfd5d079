"""What a user registers: a method, a decoder and a reader, in one file, through the whole path."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import edgekd
from edgekd.cli import main
from edgekd.config import plugins
from edgekd.core.errors import RecipeError
from edgekd.data.reader import readers
from edgekd.distill.method import methods
from edgekd.standalone import decoder

PLUGIN = '''
"""One file, which numpy alone can run."""

import csv

import numpy as np


def decode_corner_map(levels, contract):
    """Boxes around each cell, as EdgeKD's own tests would never have them."""
    grid = levels[0]["detections"]
    height, width, _ = grid.shape
    rows, columns = np.indices((height, width), dtype=np.float32)
    size = np.array([contract["input"]["width"] / width, contract["input"]["height"] / height])
    corner = np.stack((columns, rows), -1).reshape(-1, 2) * size
    shift = np.tanh(grid.reshape(height * width, -1)[:, :2]) * 4
    boxes = np.concatenate((corner + shift, corner + shift + 16), 1).astype(np.float32)
    return boxes, 1 / (1 + np.exp(-grid.reshape(height * width, -1)[:, 2:]))


def corner_map(classes, height, width, priors):
    return {"detections": (1, 2 + classes, "H", "W")}


def register():
    import torch

    import edgekd

    edgekd.register_decoder("corner-map", decode_corner_map, outputs=corner_map)

    @edgekd.register_method(
        "half-error", tasks={"detection"}, needs={"outputs"}, weight=0.5, options={"power": 2.0},
        cost="nothing", source="this test", summary="the teacher's raw outputs",
    )
    class HalfError(torch.nn.Module):
        def __init__(self, pairs, power):
            super().__init__()
            self.power = power

        def forward(self, given):
            pairs = zip(given.student_outputs, given.teacher_outputs)
            return sum(((s - t).abs() ** self.power).mean() for s, t in pairs) / 2

    @edgekd.register_reader(
        "boxes-csv", finds=lambda root: (root / "boxes.csv").is_file(), describes="a boxes.csv"
    )
    def read(request):
        table = request.root / "boxes.csv"
        images = {}
        with table.open() as stream:
            for split, name, *box, category in csv.reader(stream):
                if split == request.split:
                    found = edgekd.AnnotatedObject(category=category, box=tuple(map(float, box)))
                    images.setdefault(name, []).append(found)
        return edgekd.assemble_dataset(
            request, form="boxes-csv", root=request.root, categories=("square", "disc"),
            available=("train", "val"),
            images=[
                edgekd.AnnotatedImage(
                    name=name, path=request.root / name, annotation=table, objects=tuple(objects)
                )
                for name, objects in images.items()
            ],
        )
'''
MODEL = """
import torch
from torch import nn

def detector():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1),
    )
"""
QUICK = {
    "quantize": {"training": {"steps": 3, "batch_size": 4}, "calibration_images": 4},
    "export": {"proof_images": 2},
    "benchmark": {"bootstrap": 100, "runs": 50, "seconds": 0},
}


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def forget() -> None:
    edgekd.unregister_method("half-error")
    edgekd.unregister_decoder("corner-map")
    edgekd.unregister_reader("boxes-csv")
    plugins._LOADED.clear()


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    forget()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in a format of its own, a network, and a plugin that knows both."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("plugins")
    (folder / "my_plugin.py").write_text(PLUGIN)
    (folder / "my_model.py").write_text(MODEL)
    rng, lines = np.random.default_rng(1), []
    (folder / "set").mkdir()
    for split, count in (("train", 8), ("val", 5)):
        for index in range(count):
            name = f"{split}{index}.png"
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "set" / name)
            lines.append(f"{split},{name},4,4,{12 + index},20,{('square', 'disc')[index % 2]}")
    (folder / "set" / "boxes.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def finished(work: Path) -> edgekd.Run:
    """The path run from Python with one plugin that gives data, decoder and loss."""
    try:
        return edgekd.compress(
            data=work / "set",
            plugins=[work / "my_plugin.py"],
            teacher=f"{work / 'my_model.py'}:detector",
            student="same",
            target="raspberry-pi",
            out=work / "run",
            network={"decoder": "corner-map"},
            distill={"methods": {"half-error": {"power": 1.5}}},
            progress=False,
            torch_device="cpu",
            **QUICK,
        )
    finally:
        forget()


def test_a_run_learns_reads_and_decodes_by_what_was_registered(finished: edgekd.Run) -> None:
    assert finished.report is not None
    assert all(check.passed for check in finished.report.checks)
    curve = json.loads((finished.folder / "quantize" / "curve.json").read_text())
    assert all("term/kd/half-error" in point for point in curve)
    assert {row.key for row in finished.report.rows} >= {"int8-onnx", "int8-tflite"}


def test_the_bundle_reads_its_outputs_without_the_plugin(finished: edgekd.Run, work: Path) -> None:
    assert finished.bundle is not None
    shipped = finished.bundle / "decoder_corner_map.py"
    assert shipped.read_text() == PLUGIN
    assert (finished.folder / "export" / shipped.name).read_text() == PLUGIN
    assert shipped.name in (finished.bundle / "README.md").read_text()
    replayed = subprocess.run(
        [sys.executable, finished.bundle / "replay.py"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_commands_on_files_run_only_the_plugin_that_they_are_given(
    finished: edgekd.Run, work: Path, tmp_path: Path
) -> None:
    file, image = finished.folder / "export" / "int8.onnx", work / "set" / "val0.png"
    plugin = ("--plugin", work / "my_plugin.py")
    for arguments, told in (
        (("verify", finished.bundle), "only its own replay.py runs"),
        (("bundle", finished.folder, "--out", tmp_path / "bundle"), "name it with --plugin"),
        (("predict", file, image, "--out", tmp_path / "drawn"), "name that file with --plugin"),
        (("eval", file, "--data", work / "set"), "no known data set"),
    ):
        refused = command(*arguments)
        assert refused.exit_code == 2, refused.output
        assert told in refused.output
        assert "corner-map" not in decoder.DECODERS
        accepted = command(*arguments, *plugin)
        assert accepted.exit_code == 0, accepted.output
        forget()
    for arguments in (("report", finished.folder), ("inspect", file)):
        assert command(*arguments).exit_code == 0
        assert not plugins._LOADED


def test_a_run_goes_on_from_its_recipe_and_starts_afresh_with_a_changed_plugin(
    finished: edgekd.Run, work: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    recipe = work / "recipe.yaml"
    text = (folder / "recipe.yaml").read_text()
    recipe.write_text(re.sub(r"- /.*my_plugin.py", "- my_plugin.py", text))
    arguments = ("quantize", "--recipe", recipe, "--out", folder, "--torch-device", "cpu")
    assert command(*arguments).exit_code == 0
    assert _events(folder, 2) == ["skipped", "skipped"]
    plugin = work / "my_plugin.py"
    plugin.write_text(PLUGIN.replace(") / 2\n", ") / 3\n"))
    try:
        done = command(*arguments)
    finally:
        plugin.write_text(PLUGIN)
    assert done.exit_code == 0, done.output
    assert _events(folder, 2) == ["started", "finished"]


def _events(folder: Path, count: int) -> list[str]:
    lines = (folder / "events.jsonl").read_text().splitlines()[-count:]
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_module", "plugin .*: fails, ModuleNotFoundError: .*no_such_module"),
        ("1 +", "plugin .*: fails, SyntaxError"),
        (
            "import edgekd\ndef decode_mine(levels, contract): ...\n"
            "edgekd.register_decoder('mine', decode_mine, outputs=None)",
            "imports 'edgekd', but it goes to the board for its decoder 'mine'",
        ),
        (
            "def read(levels, contract): ...\ndef register():\n import edgekd\n"
            " edgekd.register_decoder('mine', read, outputs=None)",
            "called 'read'; legal: 'decode_mine'",
        ),
        (
            "def decode_yolov8(levels, contract): ...\ndef register():\n import edgekd\n"
            " edgekd.register_decoder('yolov8', decode_yolov8, outputs=None)",
            "decoder 'yolov8' is there already",
        ),
        (
            "import edgekd, torch\n@edgekd.register_method('pkd', tasks=['detection'], needs=[])\n"
            "class Mine(torch.nn.Module): ...",
            "method 'pkd' is edgekd.distill.methods.features.Pearson already",
        ),
        (
            "import edgekd\nedgekd.register_method('x', tasks=['tracking'], needs=[])",
            "'tracking' is unknown; legal needs: .* legal tasks: detection, classification",
        ),
        (
            "import edgekd\nedgekd.register_reader('coco', finds=None, describes='')(print)",
            "format 'coco' has a reader already",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(source: str, told: str, tmp_path: Path) -> None:
    methods(), readers()
    path = tmp_path / "plugin.py"
    path.write_text(source)
    with pytest.raises(RecipeError, match=told):
        plugins.load_plugins([path])


def test_a_missing_plugin_ends_a_command_with_exit_code_2(tmp_path: Path, boats: Path) -> None:
    missing = ("--plugin", tmp_path / "none.py")
    for arguments in (("compress", "--data", boats), ("eval", tmp_path / "x.onnx")):
        refused = command(*arguments, *missing)
        assert refused.exit_code == 2
        assert "none.py: no such file" in refused.output


def test_an_installed_package_registers_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "def register():\n import edgekd\n"
        " edgekd.register_reader('shop', finds=lambda r: False, describes='a shop')(print)\n"
    )
    info = tmp_path / "shop-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[edgekd.plugins]\nshop = shop:register\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from edgekd.config.plugins import load_plugins\n"
        "from edgekd.data.reader import readers\n"
        "print(load_plugins(), list(readers()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "{'shop': '1.2'} ['shop', 'yolo'" in done.stdout, done.stderr


def test_a_method_that_a_program_registers_is_part_of_what_stages_depend_on() -> None:
    from edgekd.distill.method import registered_sources

    @edgekd.register_method("half-error", tasks={"detection"}, needs={"outputs"})
    class Mine(torch.nn.Module):
        """Says nothing."""

    assert set(registered_sources(["half-error", "pkd"])) == {"half-error"}


def test_the_examples_of_the_documentation_register(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    for index, block in enumerate(blocks):
        path = tmp_path / f"plugin{index}.py"
        path.write_text(block)
        plugins.load_plugins([path])
    assert "sharp-outputs" in methods()
    assert "my-map" in decoder.DECODERS
    assert "boxes-csv" in readers()
    edgekd.unregister_method("sharp-outputs")
    edgekd.unregister_decoder("my-map")


@pytest.mark.parametrize(
    ("package", "known", "source"),
    [
        (
            "edgekd.distill.methods",
            methods,
            "@edgekd.register_method('extra', tasks={'detection'}, needs={'outputs'})\n"
            "class Extra(torch.nn.Module): ...",
        ),
        (
            "edgekd.data.readers",
            readers,
            "edgekd.register_reader('extra', finds=bool, describes='')(print)",
        ),
    ],
)
def test_a_new_file_in_its_folder_is_all_that_edgekd_itself_needs(
    package: str,
    known: Callable[[], Mapping[str, object]],
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "extra.py").write_text(f"import edgekd, torch\n{source}\n")
    module = importlib.import_module(package)
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path)])
    assert "extra" in known()
    edgekd.unregister_method("extra")
    edgekd.unregister_reader("extra")
    del sys.modules[f"{package}.extra"]
