"""Commands on devices: list, show and compare their profiles; calibrate one with a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli.app import main
from edgekd.cli.board_options import board_options, probed_board_options
from edgekd.cli.recipe_options import FOLDER

if TYPE_CHECKING:
    from edgekd.commands.latency import Place
    from edgekd.config.device import Device, Runtime
    from edgekd.core.types import Format


class _Devices(click.Group):
    """`edgekd devices` lists and `edgekd devices ID` shows, without a further word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        elif args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@main.group(cls=_Devices)
def devices() -> None:
    """List the device profiles, show one whole, compare some, calibrate one with a board.

    \b
    edgekd devices                     every profile
    edgekd devices jetson              one of them, whole
    edgekd devices compare A B         fact by fact
    edgekd devices calibrate A MODEL   with latencies measured on the board
    edgekd devices new NAME            a profile of the board itself
    """  # noqa: D301 - click keeps lines after a backspace character as they are


@devices.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_profiles(as_json: bool) -> None:
    """Every profile: what it is shipped, and what its predicted latencies rest on."""
    from edgekd.config.device import list_devices
    from edgekd.core.serialize import to_mapping

    if as_json:
        click.echo(json.dumps([to_mapping(d) for d in list_devices()], indent=1))
        return
    for profile in list_devices():
        kinds = "/".join(kind.value for kind in profile.runtime.precisions)
        click.echo(f"{profile.id:<22}{profile.name}")
        click.echo(f"{'':<22}{_ran(profile, profile.runtime)}: {kinds}")
        click.echo(f"{'':<22}latency {_trust(profile, profile.primary)}")


@devices.command()
@click.argument("device")
@click.option("--json", "as_json", is_flag=True)
def show(device: str, as_json: bool) -> None:
    """One profile, whole."""
    import yaml

    from edgekd.config.device import load_device
    from edgekd.core.serialize import to_mapping

    shown = to_mapping(load_device(device))
    click.echo(json.dumps(shown, indent=1) if as_json else yaml.safe_dump(shown, sort_keys=False))


@devices.command()
@click.argument("profiles", nargs=-1, required=True)
def compare(profiles: tuple[str, ...]) -> None:
    """Facts of some profiles, one below the other."""
    from edgekd.config.device import load_device

    found = {device.id: _facts(device) for device in map(load_device, profiles)}
    width = max(map(len, found)) + 2
    for name in dict.fromkeys(name for facts in found.values() for name in facts):
        click.echo(name)
        for device, facts in found.items():
            click.echo(f"  {device:<{width}}{facts.get(name, '-')}")


@devices.command()
@click.argument("device")
@click.argument("models", nargs=-1, required=True, type=FOLDER)
@board_options
@click.option("--threads", type=click.IntRange(1), help="[the profile's]")
def calibrate(device: str, models: tuple[Path, ...], place: Place, threads: int | None) -> None:
    """Measure MODELS on a board, so that DEVICE's latencies are predicted from them, too."""
    from edgekd.commands.latency import calibrate as calibrate_with
    from edgekd.config.device import load_device
    from edgekd.measure.on_board import Protocol

    protocol = Protocol(threads=threads or load_device(device).threads)
    for model, predicted, measured, path, count in calibrate_with(models, device, protocol, place):
        click.echo(
            f"{model}: measured {measured:.2f} ms, predicted {predicted:.2f} ms "
            f"({predicted / measured - 1:+.0%}); kept in {path}, {count} of its precision"
        )


@devices.command()
@click.argument("name")
@probed_board_options
@click.option("--out", type=FOLDER, help="The file. [NAME.yaml]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def new(name: str, place: Place, out: Path | None, force: bool) -> None:
    """Start a profile from what a connected board tells of itself."""
    from edgekd.commands.device_probe import probed_profile
    from edgekd.core.errors import RecipeError
    from edgekd.core.files import write_atomic

    path = out or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise RecipeError(f"{path}: exists already; --force replaces it")
    write_atomic(path, probed_profile(name, host=place.host, adb=place.adb, python=place.python))
    click.echo(f"{path}: read it through, then `edgekd compress --target {path}`")


def _ran(device: Device, runtime: Runtime) -> str:
    threads = f"{runtime.delegate}, {device.threads} thread{'s' if device.threads > 1 else ''}"
    return f"{runtime.name} {runtime.version}, {threads if runtime.engine == 'cpu' else 'GPU'}"


def _trust(device: Device, model_format: Format) -> str:
    """Returns what predictions of a format's latency rest on."""
    from edgekd.measure.predict import latency_model

    known = latency_model(device, model_format)
    if known is None:
        return "not predicted: measure it"
    counts = [f"{count} {p.value}" for p, count in known.calibrated.items() if count]
    state = f"calibrated ({', '.join(counts)})" if counts else "uncalibrated"
    return f"{state}; {known.known_from[0]}"


def _facts(device: Device) -> dict[str, str]:
    facts = {"name": device.name}
    for cluster in device.cpu:
        int8 = f"{cluster.int8_kernel}, {cluster.int8_ops_per_cycle:g} int8 operations a cycle"
        facts[f"CPU {cluster.name}"] = (
            f"{cluster.cores} {cluster.uarch} {cluster.clock_ghz:g} GHz, {int8}"
        )
    if device.gpu:
        int8 = f", {device.gpu.int8_tops:g} TOPS int8" if device.gpu.int8_tops else ""
        facts["GPU"] = f"{device.gpu.name}, {device.gpu.fp16_tflops:g} TFLOPS float16{int8}"
    for one in device.accelerators:
        through = " or ".join(one.through) or "nothing"
        kinds = f": {'/'.join(p.value for p in one.precisions)}" if one.precisions else ""
        note = f"; {one.note}" if one.note else ""
        told = f"{one.name}, through {through}{kinds}{note}; not predicted"
        kind = one.kind.upper()
        facts[kind] = f"{facts[kind]}; {told}" if kind in facts else told
    if device.memory:
        bus, copied = device.memory.theoretical_gb_s, device.memory.copied_gb_s
        measured = f"{copied:g} GB/s copied by one core" if copied else "no copy measured"
        facts["memory"] = f"{f'{bus:g} GB/s, ' if bus else ''}{measured}"
    facts["power mode"] = device.power_mode.name
    for model_format, runtime in device.runtimes.items():
        kinds = "/".join(p.value for p in runtime.precisions)
        facts[f"{model_format.value} in"] = f"{_ran(device, runtime)}: {kinds}"
        facts[f"{model_format.value} latency"] = _trust(device, model_format)
    for refusal in device.refused:
        kind = refusal.precision.value if refusal.precision else "whole"
        facts[f"{refusal.format.value} {kind}"] = "refused"
    facts["int8"] = (
        f"{device.quantization.activation_symmetry} activations, "
        f"{device.quantization.weight.granularity} weights, opset {device.quantization.opset}"
    )
    return facts
