"""Commands on model files, finished runs and bundles."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli.app import main
from edgekd.cli.board_options import board_options, python_option
from edgekd.cli.recipe_options import (
    FOLDER,
    gate_changes,
    gate_options,
    plugin_option,
    progress_for_terminal,
)
from edgekd.cli.train_commands import figures, print_run

if TYPE_CHECKING:
    from edgekd.commands.latency import Place
    from edgekd.measure.on_board import Protocol


@main.command("eval")
@click.argument("models", nargs=-1, required=True, type=FOLDER)
@click.option("--data", type=FOLDER, help="Data set. [the built-in demo set]")
@click.option("--split", default="val", show_default=True)
@click.option("--host", help="Compute there over ssh, such as pi@192.168.1.20.")
@plugin_option
@python_option
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def evaluate(
    models: tuple[Path, ...],
    data: Path | None,
    split: str,
    host: str | None,
    python: str,
    threads: int,
    as_json: bool,
) -> None:
    """MAP (or top-1) of exported files, each in its own runtime, here or on a board."""
    from edgekd.commands.evaluate import evaluate_files
    from edgekd.core.serialize import to_mapping

    for path, metrics in evaluate_files(
        models, data, split, threads, progress_for_terminal(), host, python
    ):
        values = to_mapping(metrics)
        if as_json:
            click.echo(json.dumps({"model": str(path), **values}))
        else:
            click.echo(f"{path}: {figures(values)}, {values['images']} images")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("model", type=FOLDER)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--target", help="Predict the latency there, or for `all`, instead of measuring it.")
@click.option("--explain", is_flag=True, help="With --target: the operators that cost most.")
@board_options
@click.option("--hosts", type=FOLDER, help="Measure on every board of this YAML at once.")
@click.option("--threads", type=click.IntRange(1), help="[1; with --target the profile's]")
@click.option("--runs", type=click.IntRange(50), default=60, show_default=True, help="At least.")
@click.option("--seconds", type=click.FloatRange(0), default=3.0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def bench(
    model: Path,
    options: tuple[str, ...],
    target: str | None,
    explain: bool,
    place: Place,
    hosts: Path | None,
    threads: int | None,
    runs: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Latency of an ONNX or TFLite file: measured here or on a board, or predicted for a target.

    OPTIONS after ``--`` go to benchmark_model or trtexec, such as ``-- --use_gpu=true``.
    """
    from edgekd.commands.latency import measure_file
    from edgekd.core.serialize import to_mapping
    from edgekd.measure.on_board import Protocol, measurement_lines

    if sum(where is not None for where in (target, place.host, place.adb, hosts)) > 1:
        raise click.UsageError("--target, --host, --hosts and --adb exclude each other")
    if options and not (place.trtexec or place.adb is not None):
        raise click.UsageError(f"{options[0]}: options are passed on with --adb and --trtexec only")
    if explain and not target:
        raise click.UsageError("--explain needs --target: a measurement has no operators")
    if target:
        _print_prediction(model, target, threads, explain, as_json)
        return
    protocol = Protocol(threads=threads or 1, runs=runs, seconds=seconds)
    if hosts:
        _bench_farm(model, hosts, protocol, as_json)
        return
    found = measure_file(model, protocol, replace(place, options=options))
    if as_json:
        click.echo(json.dumps(to_mapping(found), indent=1))
    else:
        click.echo("\n".join(measurement_lines(found)))
    if found.invalid:
        sys.exit(1)


def _print_prediction(
    model: Path, target: str, threads: int | None, explain: bool, as_json: bool
) -> None:
    from edgekd.commands import latency as measuring
    from edgekd.core.serialize import to_mapping

    if target == "all":
        if explain or threads:
            raise click.UsageError("--target all: name one target for --explain or --threads")
        found_everywhere = measuring.predict_file_everywhere(model)
        if as_json:
            click.echo(json.dumps([to_mapping(latency) for latency in found_everywhere], indent=1))
        else:
            click.echo("\n".join(measuring.everywhere_lines(found_everywhere)))
        return
    latency = measuring.predict_file_latency(model, target, threads)
    costs = measuring.explain(model, target, threads) if explain else []
    if as_json:
        found = to_mapping(latency)
        found |= {"operators": [to_mapping(cost) for cost in costs]} if explain else {}
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(measuring.prediction_line(latency))
    click.echo(f"known from {latency.conditions['known from']}")
    for line in measuring.explanation_lines(costs) if explain else ():
        click.echo(line)


def _bench_farm(model: Path, hosts: Path, protocol: Protocol, as_json: bool) -> None:
    from edgekd.commands.latency import measure_farm, read_farm
    from edgekd.core.serialize import to_mapping
    from edgekd.measure.on_board import BoardMeasurement, measurement_lines

    found = measure_farm(model, read_farm(hosts), protocol)
    measured = {n: m for n, m in found.items() if isinstance(m, BoardMeasurement)}
    if as_json:
        failed = {n: {"error": str(e)} for n, e in found.items() if n not in measured}
        click.echo(json.dumps({n: to_mapping(m) for n, m in measured.items()} | failed, indent=1))
    else:
        for name, result in found.items():
            lines = measurement_lines(measured[name]) if name in measured else [f"FAILED: {result}"]
            click.echo("\n".join([f"{name}: {lines[0]}", *lines[1:]]))
    if len(measured) < len(found) or any(m.invalid for m in measured.values()):
        sys.exit(1)


@main.command()
@click.argument("model", type=FOLDER)
@click.argument("images", nargs=-1, required=True, type=FOLDER)
@plugin_option
@click.option("--out", type=FOLDER, default=Path("predictions"), show_default=True)
@click.option("--min-score", type=click.FloatRange(0.001, 1), default=0.3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the detections as JSON.")
def predict(
    model: Path, images: tuple[Path, ...], out: Path, min_score: float, as_json: bool
) -> None:
    """Detect in images (or folders of them): boxes drawn, and detections.json."""
    from edgekd.commands.predict import predict_images

    found = predict_images(model, images, out, min_score, progress_for_terminal())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(
            f"{len(found)} images, {sum(len(r['detections']) for r in found)} detections: {out}"
        )


@main.command()
@click.argument("model", type=FOLDER)
@click.option("--target", help="Whose rules to check. [the file's own target]")
@click.option(
    "--delegate",
    "delegates",
    multiple=True,
    type=click.Choice(["gpu", "qnn"]),
    help="An accelerator whose rules to check too: gpu (TFLite), qnn (ONNX).",
)
@click.option("--json", "as_json", is_flag=True)
@click.option("--sarif", "as_sarif", is_flag=True, help="The findings as SARIF 2.1.0.")
def inspect(
    model: Path, target: str | None, delegates: tuple[str, ...], as_json: bool, as_sarif: bool
) -> None:
    """What a model file holds: contract, operators, precision, rules it breaks."""
    from edgekd.commands.inspect import inspect_file, inspection_lines, inspection_sarif

    found = inspect_file(model, target, delegates)
    if as_sarif:
        click.echo(json.dumps(inspection_sarif(found), indent=1))
    elif as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for line in inspection_lines(found):
            click.echo(line)
    if found["errors"]:
        sys.exit(3)


@main.command()
@click.argument("run", type=FOLDER)
@gate_options
@click.option("--verbose", is_flag=True, help="List every proof and every file.")
@click.option("--json", "as_json", is_flag=True)
def report(run: Path, verbose: bool, as_json: bool, **limits: str | None) -> None:
    """Show a finished run's report again, or hold the run against other gates."""
    from edgekd.commands.report import reopened_report
    from edgekd.proof.prove import require_passed
    from edgekd.report.gates import require_gates
    from edgekd.report.record import to_json

    record = reopened_report(run, gate_changes(limits))
    click.echo(to_json(record)) if as_json else print_run(record, run, verbose=verbose)
    require_passed(record.checks)
    require_gates(record.gates)


@main.command()
@click.argument("run", type=FOLDER)
@plugin_option
@click.option("--out", type=FOLDER, help="Folder of the bundle. [<run>-bundle]")
def bundle(run: Path, out: Path | None) -> None:
    """Write what firmware takes over: files, contract, decoder, thresholds, golden vectors."""
    from edgekd.stages.bundle import bundle_run

    run = run.resolve()
    folder = out or run.with_name(f"{run.name}-bundle")
    click.echo(f"bundle: {bundle_run(run, folder, progress_for_terminal())}")


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--host", help="Replay there over ssh instead, such as pi@192.168.1.20.")
@plugin_option
@python_option
@click.option("--json", "as_json", is_flag=True)
def verify(bundle: Path, host: str | None, python: str, as_json: bool) -> None:
    """Replay a bundle's golden vectors in whatever runtime is installed, and compare."""
    from edgekd.bundle.verify import verify as replayed
    from edgekd.standalone.replay import show

    result = replayed(bundle, host, python)
    click.echo(json.dumps(result, indent=1) if as_json else show(result))
    if not result["passed"]:
        sys.exit(1)


@main.command()
@click.option("--out", type=FOLDER, default=Path("runs"), show_default=True, help="Of coming runs.")
@click.option("--json", "as_json", is_flag=True)
def doctor(out: Path, as_json: bool) -> None:
    """What this machine can do, and what is wrong with it; exit code 1 if something is."""
    from edgekd.commands.doctor import examine, lines
    from edgekd.core.serialize import to_mapping

    findings = examine(out)
    if as_json:
        click.echo(json.dumps([to_mapping(f) for f in findings], indent=1))
    else:
        for line in lines(findings):
            click.echo(line)
    if any(f.level == "error" for f in findings):
        sys.exit(1)
