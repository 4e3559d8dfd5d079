"""Commands that train: the whole path, and its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgekd.cli.app import main
from edgekd.cli.recipe_options import gate_options, prepared, recipe_options
from edgekd.core.errors import GateError


@main.command()
@recipe_options
@gate_options
@click.option(
    "--until",
    type=click.Choice(["distill", "quantize", "export", "report", "bundle"]),
    default="bundle",
)
def compress(until: str, **options: Any) -> None:  # noqa: ANN401 - click passes the options by name
    """The whole path: distil, quantize, export, prove, measure, report."""
    _compress("compress", until, **options)


@main.command()
@recipe_options
def train(**options: Any) -> None:  # noqa: ANN401 - as above
    """Train a network on annotation alone: a teacher, or a student to compare with."""
    recipe, out, progress, device = prepared("train", options, default_student="m")
    from edgekd.core.serialize import to_mapping
    from edgekd.pipeline import train as run

    checkpoint, assessment = run(recipe, out, progress=progress, torch_device=device)
    (row,) = assessment.rows
    if options["as_json"]:
        result = {"checkpoint": str(checkpoint), "row": to_mapping(row)}
        click.echo(json.dumps(result, indent=1))
    else:
        metrics = to_mapping(row.metrics) if row.metrics else {}
        cost = f"{row.parameters:,} parameters, {row.macs / 1e6:.0f} M MACs"
        click.echo(f"{row.name}: {cost}; {figures(metrics)}")
        click.echo(f"checkpoint: {checkpoint}")


@main.command()
@recipe_options
def distill(**options: Any) -> None:  # noqa: ANN401 - as above
    """Train the student with the teacher's signal, and stop there."""
    _compress("compress", "distill", **options)


@main.command()
@recipe_options
@click.option("--analyze", is_flag=True, help="Show what int8 does at each layer, and its price.")
def quantize(analyze: bool, **options: Any) -> None:  # noqa: ANN401 - as above
    """Distil if that is not done yet, then make the student integer."""
    if analyze:
        _analyze(**options)
    else:
        _compress("compress", "quantize", **options)


def _analyze(**options: Any) -> None:  # noqa: ANN401 - as above
    recipe, out, progress, device = prepared("compress", options)
    from edgekd.core.serialize import to_mapping
    from edgekd.pipeline import analyse
    from edgekd.report.terminal import print_layers

    reports = [to_mapping(r) for r in analyse(recipe, out, progress=progress, torch_device=device)]
    if options["as_json"]:
        click.echo(json.dumps(reports, indent=1))
    else:
        import rich.console

        print_layers(reports, recipe.target, rich.console.Console())


@main.command()
@recipe_options
def export(**options: Any) -> None:  # noqa: ANN401 - as above
    """Everything up to proven ONNX and TFLite files."""
    _compress("compress", "export", **options)


def figures(metrics: dict[str, Any]) -> str:
    """Returns the numbers of a metrics record in one line."""
    return ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if isinstance(v, float))


def _compress(name: str, until: str, **options: Any) -> None:  # noqa: ANN401 - as above
    recipe, out, progress, device = prepared(name, options)
    from edgekd.pipeline import compress as run
    from edgekd.report.record import to_json
    from edgekd.run.directory import finished_record

    try:
        record = run(recipe, out, progress=progress, torch_device=device, until=until)
    except GateError:
        missed = finished_record(out)
        if options["as_json"]:
            click.echo(to_json(missed))
        else:
            print_run(missed, out, verbose=options["verbose"])
        raise
    if options["as_json"]:
        click.echo(to_json(record) if record else json.dumps({"run": str(out), "until": until}))
    elif record is None:
        click.echo(f"done up to {until}: {out / until}")
    else:
        print_run(record, out, verbose=options["verbose"])


def print_run(record: Any, run: Path, *, verbose: bool) -> None:  # noqa: ANN401 - RunRecord
    """Prints a run's tables and where its files are."""
    import rich.console

    from edgekd.report.terminal import print_report

    print_report(record, rich.console.Console(), verbose=verbose)
    click.echo(f"files:  {run / 'export'}")
    click.echo(f"report: {run / 'report' / 'report.html'}")
    for bundle in sorted(run.glob("bundle/*/manifest.json")):
        click.echo(f"bundle: {bundle.parent}")
