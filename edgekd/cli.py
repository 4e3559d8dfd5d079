"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd import __version__
from edgekd.errors import EdgeKDError, RecipeError

if TYPE_CHECKING:
    import torch

    from edgekd.progress import Progress
    from edgekd.recipe import Recipe

_FOLDER = click.Path(path_type=Path)
_Command = Callable[..., Any]


class _Commands(click.Group):
    """Turns deliberate errors into one line and their exit code, and Ctrl-C into a promise."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except EdgeKDError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:  # A full disk, a folder that may not be written.
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\ninterrupted; the same command goes on from the last checkpoint", err=True)
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekd")
def main() -> None:
    r"""Distil, quantize, export and prove a vision model for an edge device.

    \b
    edgekd compress --target jetson               the whole path on the built-in demo
    edgekd compress --target raspberry-pi --data DATASET --teacher TEACHER.safetensors
    """


def _recipe_options(command: _Command) -> _Command:
    """Adds the options that make up a recipe, for every command that trains."""
    options = [
        click.option("--recipe", "recipe_file", type=_FOLDER, help="Recipe YAML (`edgekd init`)."),
        click.option("--target", help="Device id (`edgekd devices`) or a device YAML. [jetson]"),
        click.option("--data", type=_FOLDER, help="Data set: COCO, YOLO, VOC, image folder, IDX."),
        click.option("--unlabelled", type=_FOLDER, help="More training images, not annotated."),
        click.option(
            "--teacher",
            multiple=True,
            help="A .safetensors checkpoint, the .yaml card of a detector's file, or "
            "my_model.py:function. Several are averaged.",
        ),
        click.option(
            "--weights", type=_FOLDER, help="State dict of a my_model.py:function teacher."
        ),
        click.option(
            "--student",
            help="Architecture, such as edgedet-n; `same` only makes the teacher integer; or "
            "my_model.py:function. [edgedet-n]",
        ),
        click.option("--input", "size", help="Input as HEIGHTxWIDTH, such as 320x320."),
        click.option("--channels", type=click.Choice(["1", "3"]), help="Grey (1) or RGB (3)."),
        click.option("--steps", type=click.IntRange(1), help="Distillation steps."),
        click.option("--qat-steps", type=click.IntRange(1), help="QAT steps."),
        click.option("--batch-size", type=click.IntRange(1), help="Images a step, in every loop."),
        click.option(
            "--ptq", is_flag=True, help="Calibrate instead of quantization-aware training."
        ),
        click.option(
            "--baseline", is_flag=True, help="Also train the student without the teacher."
        ),
        click.option("--strict", is_flag=True, help="Any problem in the data set is an error."),
        click.option("--seed", type=int, help="Of weights, data order and augmentation. [0]"),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any recipe key."
        ),
        click.option("--out", type=_FOLDER, help="Run directory. [runs/<command>-<target>]"),
        click.option(
            "--torch-device", default="auto", help="cpu, cuda or auto.", show_default=True
        ),
        click.option("--threads", type=click.IntRange(1), help="CPU threads for training."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_recipe_options
@click.option(
    "--until", type=click.Choice(["distill", "quantize", "export", "report"]), default="report"
)
def compress(until: str, **options: Any) -> None:  # noqa: ANN401 - click passes the options by name
    """The whole path: distil, quantize, export, prove, measure, report."""
    _compress("compress", until, **options)


@main.command()
@_recipe_options
def train(**options: Any) -> None:  # noqa: ANN401 - as above
    """Train a network on annotation alone: a teacher, or a student to compare with."""
    recipe, out, progress, device = _prepared("train", options, default_student="m")
    from edgekd.pipeline import train as run
    from edgekd.strict import to_mapping

    checkpoint, assessment = run(recipe, out, progress=progress, torch_device=device)
    (row,) = assessment.rows
    if options["as_json"]:
        result = {"checkpoint": str(checkpoint), "row": to_mapping(row)}
        click.echo(json.dumps(result, indent=1))
    else:
        metrics = to_mapping(row.metrics) if row.metrics else {}
        cost = f"{row.parameters:,} parameters, {row.macs / 1e6:.0f} M MACs"
        click.echo(f"{row.name}: {cost}; {_figures(metrics)}")
        click.echo(f"checkpoint: {checkpoint}")


@main.command()
@_recipe_options
def distill(**options: Any) -> None:  # noqa: ANN401 - as above
    """Train the student with the teacher's signal, and stop there."""
    _compress("compress", "distill", **options)


@main.command()
@_recipe_options
def quantize(**options: Any) -> None:  # noqa: ANN401 - as above
    """Distil if that is not done yet, then make the student integer."""
    _compress("compress", "quantize", **options)


@main.command()
@_recipe_options
def export(**options: Any) -> None:  # noqa: ANN401 - as above
    """Everything up to proven ONNX and TFLite files."""
    _compress("compress", "export", **options)


@main.command("eval")
@click.argument("models", nargs=-1, required=True, type=_FOLDER)
@click.option("--data", type=_FOLDER, help="Data set. [the built-in demo set]")
@click.option("--split", default="val", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def evaluate(
    models: tuple[Path, ...], data: Path | None, split: str, threads: int, as_json: bool
) -> None:
    """MAP (or top-1) of exported files, each in its own runtime."""
    from edgekd.file_commands import evaluate_files
    from edgekd.strict import to_mapping

    for path, metrics in evaluate_files(models, data, split, threads, _progress()):
        values = to_mapping(metrics)
        if as_json:
            click.echo(json.dumps({"model": str(path), **values}))
        else:
            click.echo(f"{path}: {_figures(values)}, {values['images']} images")


@main.command()
@click.argument("model", type=_FOLDER)
@click.option("--target", help="Predict the latency there instead of measuring it here.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--runs", type=click.IntRange(50), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def bench(model: Path, target: str | None, threads: int, runs: int, as_json: bool) -> None:
    """Latency of an ONNX or TFLite file: measured here, or predicted for a target."""
    from edgekd.file_commands import bench_file, latency_line
    from edgekd.strict import to_mapping

    latency = bench_file(model, target, threads, runs)
    click.echo(json.dumps(to_mapping(latency), indent=1) if as_json else latency_line(latency))


@main.command()
@click.argument("model", type=_FOLDER)
@click.argument("images", nargs=-1, required=True, type=_FOLDER)
@click.option("--out", type=_FOLDER, default=Path("predictions"), show_default=True)
@click.option("--min-score", type=click.FloatRange(0.001, 1), default=0.3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the detections as JSON.")
def predict(
    model: Path, images: tuple[Path, ...], out: Path, min_score: float, as_json: bool
) -> None:
    """Detect in images (or folders of them): boxes drawn, and detections.json."""
    from edgekd.file_commands import predict_images

    found = predict_images(model, images, out, min_score, _progress())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(
            f"{len(found)} images, {sum(len(r['detections']) for r in found)} detections: {out}"
        )


@main.command()
@click.argument("model", type=_FOLDER)
@click.option("--target", help="Also check the rules of this target's runtimes.")
@click.option("--json", "as_json", is_flag=True)
def inspect(model: Path, target: str | None, as_json: bool) -> None:
    """What a model file holds: contract, operators, precision, rules it breaks."""
    from edgekd.file_commands import inspect_file, inspection_lines

    found = inspect_file(model, target)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for line in inspection_lines(found):
            click.echo(line)
    if found["errors"]:
        sys.exit(3)


@main.command()
@click.argument("device", required=False)
@click.option("--json", "as_json", is_flag=True)
def devices(device: str | None, as_json: bool) -> None:
    """List the device profiles, or show one whole."""
    import yaml

    from edgekd.device import list_devices, load_device
    from edgekd.strict import to_mapping

    if device:
        shown = to_mapping(load_device(device))
        click.echo(
            json.dumps(shown, indent=1) if as_json else yaml.safe_dump(shown, sort_keys=False)
        )
    elif as_json:
        click.echo(json.dumps([to_mapping(d) for d in list_devices()], indent=1))
    else:
        for profile in list_devices():
            click.echo(f"{profile.id:<16}{profile.name}")
            click.echo(
                f"{'':<16}{profile.runtime.name}, {profile.quantization.activation_symmetry} int8"
            )


@main.command()
@click.argument("data", type=_FOLDER)
@click.option("--target", default="jetson", show_default=True)
@click.option("--out", type=_FOLDER, default=Path("recipe.yaml"), show_default=True)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(data: Path, target: str, out: Path, force: bool) -> None:
    """Write a commented recipe that fits a data set."""
    from edgekd.file_commands import write_recipe

    click.echo(write_recipe(data, target, out, force))


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True)
def report(run: Path, as_json: bool) -> None:
    """Show a finished run's report again and rewrite its HTML."""
    from edgekd.file_commands import reopened_report
    from edgekd.report.record import to_json

    record = reopened_report(run)
    click.echo(to_json(record)) if as_json else _print_report(record, run)


def _figures(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if isinstance(v, float))


def _compress(name: str, until: str, **options: Any) -> None:  # noqa: ANN401 - as above
    recipe, out, progress, device = _prepared(name, options)
    from edgekd.pipeline import compress as run
    from edgekd.report.record import to_json

    record = run(recipe, out, progress=progress, torch_device=device, until=until)
    if options["as_json"]:
        click.echo(to_json(record) if record else json.dumps({"run": str(out), "until": until}))
    elif record is None:
        click.echo(f"done up to {until}: {out / until}")
    else:
        _print_report(record, out)


def _print_report(record: Any, run: Path) -> None:  # noqa: ANN401 - RunRecord, imported late
    import rich.console

    from edgekd.report.terminal import print_report

    print_report(record, rich.console.Console())
    click.echo(f"files:  {run / 'export'}")
    click.echo(f"report: {run / 'report' / 'report.html'}")


def _prepared(
    name: str, options: dict[str, Any], default_student: str | None = None
) -> tuple[Recipe, Path, Progress, torch.device]:
    """Returns recipe, run directory, progress and torch device from the command line."""
    recipe = _recipe(options, default_student)
    # Wrong recipes and targets must fail before torch, which takes seconds to import.
    from edgekd.device import load_device
    from edgekd.sources import require_feasible

    device = load_device(recipe.target)
    if name == "compress":
        require_feasible(recipe, device)
    out = options["out"] or Path("runs") / f"{name}-{device.id}"
    return recipe, out, _progress(), _torch_device(options["torch_device"], options["threads"])


def _recipe(options: dict[str, Any], default_student: str | None) -> Recipe:
    from edgekd.recipe import load_recipe, override
    from edgekd.sources import demo_recipe, fitted_recipe

    if options["recipe_file"]:
        recipe = load_recipe(options["recipe_file"])
    elif options["data"]:
        recipe, _ = fitted_recipe(options["data"])
    else:
        recipe = demo_recipe()
    changes: dict[str, Any] = {}
    if default_student and not options["recipe_file"]:
        family = recipe.student.architecture.partition("-")[0]
        changes["student.architecture"] = f"{family}-{default_student}"
    changes |= _flag_changes(options)
    return override(recipe, changes | _settings(options["settings"]))


def _flag_changes(options: dict[str, Any]) -> dict[str, Any]:
    keys = {
        "target": ["target"],
        "seed": ["seed"],
        "student": ["student.architecture"],
        "steps": ["distill.training.steps"],
        "qat_steps": ["quantize.training.steps"],
        "batch_size": ["distill.training.batch_size", "quantize.training.batch_size"],
    }
    changes = {
        key: options[flag]
        for flag, dotted in keys.items()
        if options[flag] is not None
        for key in dotted
    }
    paths = {"data": "data.path", "unlabelled": "data.unlabelled", "weights": "teacher.weights"}
    for flag, key in paths.items():
        if options[flag]:
            changes[key] = str(options[flag])
    if options["teacher"]:
        changes["teacher.model"], *others = options["teacher"]
        changes["teacher.others"] = others
    if options["channels"]:
        changes["input.channels"] = int(options["channels"])
    if options["size"]:
        changes |= _input_size(options["size"])
    for flag, key, value in (
        ("ptq", "quantize.mode", "ptq"),
        ("baseline", "distill.baseline", True),
        ("strict", "data.strict", True),
    ):
        if options[flag]:
            changes[key] = value
    return changes


def _input_size(text: str) -> dict[str, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise RecipeError(f"--input {text!r}: expected HEIGHTxWIDTH, such as 320x320")
    return {"input.height": int(height), "input.width": int(width)}


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    from edgekd.yamlfile import parse_yaml_value

    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set {pair!r}: expected KEY=VALUE, such as quantize.mode=ptq")
        changes[key] = parse_yaml_value(value, RecipeError)
    return changes


def _progress() -> Progress:
    from edgekd.progress import BarProgress, PlainProgress

    return BarProgress() if sys.stderr.isatty() else PlainProgress()


def _torch_device(name: str, threads: int | None) -> torch.device:
    from edgekd.quiet import quietly

    with quietly():
        import torch
        import torchao.quantization.pt2e  # noqa: F401 - complains about GPU libraries on import

    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise RecipeError(f"--torch-device {name!r}: not on this machine; legal: cpu, auto")
    return torch.device(name)


if __name__ == "__main__":
    main()
