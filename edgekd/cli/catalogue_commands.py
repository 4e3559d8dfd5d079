"""Commands on the catalogues: rules, distillation methods, a recipe to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd.cli.app import main
from edgekd.cli.recipe_options import FOLDER

if TYPE_CHECKING:
    from edgekd.distill.method import Method


@main.command()
@click.option("--json", "as_json", is_flag=True)
def rules(as_json: bool) -> None:
    """List the rules of `inspect`: what each finds, how grave that is, and its source."""
    from edgekd.core.serialize import to_mapping
    from edgekd.rules.check import every_rule

    known = every_rule()
    if as_json:
        click.echo(json.dumps([to_mapping(rule) for rule in known], indent=1))
        return
    for rule in known:
        click.echo(f"{rule.id:<28}{rule.level:<8}{rule.summary}")
        click.echo(f"{'':<36}{rule.source}")


@main.command()
@click.argument("data", type=FOLDER)
@click.option("--target", default="jetson", show_default=True)
@click.option("--out", type=FOLDER, default=Path("recipe.yaml"), show_default=True)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(data: Path, target: str, out: Path, force: bool) -> None:
    """Write a commented recipe that fits a data set."""
    from edgekd.commands.init import write_recipe

    click.echo(write_recipe(data, target, out, force))


@main.command()
@click.option("--task", type=click.Choice(["detection", "classification"]), help="Only for this.")
@click.option("--json", "as_json", is_flag=True)
def methods(task: str | None, as_json: bool) -> None:
    """List the distillation methods: what each teaches, needs and costs, and its source."""
    from edgekd.distill.method import methods as known_methods

    chosen = [m for m in known_methods().values() if task is None or task in m.tasks]
    if as_json:
        click.echo(json.dumps([_method(m) for m in chosen], indent=1))
        return
    for method in chosen:
        options = "".join(f", {k} {v:g}" for k, v in method.options.items())
        click.echo(f"{method.name:<22}{method.summary}")
        click.echo(f"{'':<22}{', '.join(sorted(method.tasks))}; needs {_needs(method)}")
        click.echo(f"{'':<22}weight {method.weight:g}{options}; costs {method.cost}")
        click.echo(f"{'':<22}{method.source}")


def _needs(method: Method) -> str:
    parts = [n if n == "labels" else f"the teacher's {n}" for n in sorted(method.needs)]
    return " and ".join(parts)


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "tasks": sorted(method.tasks),
        "needs": sorted(method.needs),
        "weight": method.weight,
        "options": dict(method.options),
        "cost": method.cost,
        "source": method.source,
        "summary": method.summary,
    }
