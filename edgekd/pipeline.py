"""The whole path, and the only file that knows its order.

    data ──► teacher ──► distil ──► quantize ──► export ──► benchmark ──► report ──► bundle

Stages do not know each other. Each writes into its own folder of the run directory and is skipped
when its inputs have not changed; training resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

import edgekd
from edgekd.bundle.write import write_bundle
from edgekd.config.device import Device, load_device
from edgekd.config.recipe import Recipe, dump_recipe
from edgekd.config.sections import FitOptions, MethodChoice
from edgekd.core.errors import RecipeError, RunError
from edgekd.core.files import sha256_of, write_atomic
from edgekd.core.progress import Progress, SilentProgress
from edgekd.core.serialize import from_mapping, to_mapping
from edgekd.core.types import Artifact, Check, Exhibit, Format, RunRecord, Setback, Task
from edgekd.export.write import Graphs, export_files
from edgekd.nets import cost
from edgekd.nets.card import Card, readable, save_net
from edgekd.nets.outputs import network_outputs
from edgekd.nets.tap import Tapped, TappedNet
from edgekd.proof.prove import Placements, prove, require_passed
from edgekd.quantize import graph as graphs
from edgekd.quantize.mixed import keep_float
from edgekd.quantize.peer import quantized_by_neural_compressor
from edgekd.report.gates import judge, require_gates
from edgekd.report.html import write_html
from edgekd.report.record import from_json, to_json
from edgekd.run.context import (
    SAME,
    Workshop,
    calibration_batches,
    load_graph,
    open_workshop,
    proof_images,
    save_graph,
)
from edgekd.run.directory import RunFolder, asked_of, digest, exported_files, making
from edgekd.run.fit import LEARNT, fit_student
from edgekd.run.inputs import fingerprint, load_split, require_apart, require_feasible, writable
from edgekd.run.student_search import Choice, fastest_ms, fitted_to_budget, keep_choice, kept_choice
from edgekd.stages.benchmark import TRAINED, Assessment, compared
from edgekd.stages.bundle import bundle_source
from edgekd.stages.mixed_precision import LayerReport, analysed, steered
from edgekd.teacher.frozen import NetTeacher, Teacher
from edgekd.training.inference import Forward, network_predictions


def compress(
    recipe: Recipe,
    folder: Path,
    *,
    progress: Progress,
    torch_device: torch.device,
    until: str = "bundle",
) -> RunRecord | None:
    """Runs the path up to a stage and returns the report's record, None where it ended before.

    Args:
        recipe: Everything about the run.
        folder: The run directory; a finished stage in it is not repeated.
        progress: Shows long work.
        torch_device: Where networks are trained.
        until: Last stage: ``distill``, ``quantize``, ``export``, ``report`` or ``bundle``.

    Raises:
        RecipeError: The combination is impossible.
        DataError: The data set cannot be read.
        ModelError: A checkpoint cannot be used.
        ProofError: An exported file does not compute what was trained.
        GateError: An exported file does not keep to the recipe's gates; there is no bundle.
        RunError: The run directory is in use.
    """
    with _opened(recipe, folder, progress, torch_device) as shop:
        made = _made(shop, until)
        while made is not None:
            smaller = _smaller(recipe, shop, made.files)
            if smaller is None:
                break
            shop, made = smaller, _made(smaller, until)
        if made is None or until == "export":
            return None
        measured = benchmark(shop, made.student, made.floating, made.integer, made.files, made.kept)
        record = report(shop, measured)
        if until != "report":
            bundle(shop, record, made.files)
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """What the stages up to export leave behind, as they hand it on."""

    student: Path
    floating: Path
    integer: Path | None
    kept: tuple[str, ...]
    files: Path


def _made(shop: Workshop, until: str) -> _Made | None:
    """Runs the stages up to export; returns None where the path ends before."""
    student = distill(shop)
    if until == "distill":
        return None
    floating, integer = quantize(shop, student)
    if until == "quantize":
        return None
    kept = steer(shop, student, floating, integer) if integer else ()
    files = export(shop, student, floating, integer, kept)
    return _Made(student=student, floating=floating, integer=integer, kept=kept, files=files)


@contextmanager
def _opened(
    recipe: Recipe, folder: Path, progress: Progress, torch_device: torch.device
) -> Iterator[Workshop]:
    """Holds the run directory, and yields everything that the stages of a run share."""
    device = load_device(recipe.target)
    made = writable(recipe, progress.note)
    require_feasible(made, device)
    with _run_folder("compress", recipe, device, folder, progress) as run:
        yield _workshop(made, device, run, progress, torch_device)


def _run_folder(
    command: str, recipe: Recipe, device: Device, folder: Path, progress: Progress
) -> RunFolder:
    """Returns the run directory, held, after a word where it goes on from another recipe's."""
    require_apart(folder, recipe)
    run = RunFolder(folder, asked_of(command, recipe, device.id))
    if not run.continues:
        progress.note(
            f"{folder}: held a run of another recipe; stages whose inputs have changed are replaced"
        )
    return run


def _workshop(
    recipe: Recipe,
    device: Device,
    run: RunFolder,
    progress: Progress,
    torch_device: torch.device,
    *,
    allowed_ms: float | None = None,
    with_teacher: bool = True,
) -> Workshop:
    """Returns what the stages share, with the student that the latency budget buys, if any.

    ``allowed_ms`` is what its prediction may be at most, where the file of an earlier one took
    longer than predicted; None for what an interrupted run of this recipe had found.
    """
    choice, asked = None, making(recipe, with_gates=True)
    if recipe.student.budget_ms is not None:
        train = load_split(recipe, recipe.data.train, run.path, SilentProgress())
        before = kept_choice(run.path)
        if allowed_ms is None and before is not None and before.recipe == asked:
            allowed_ms = before.allowed_ms
        recipe, considered, allowed_ms = fitted_to_budget(
            recipe, device, train.task, train.classes, progress, allowed_ms
        )
        choice = Choice(recipe=asked, allowed_ms=allowed_ms, considered=considered)
    shop = open_workshop(recipe, device, run, progress, torch_device, with_teacher=with_teacher)
    keep_choice(run.path, choice)
    write_atomic(run.path / "recipe.yaml", dump_recipe(recipe))
    return shop


def _smaller(recipe: Recipe, shop: Workshop, files: Path) -> Workshop | None:
    """Returns a workshop for a smaller student where the files overrun the budget of this one.

    None where they keep to it, and where nothing smaller is to be had: then the gate says so.
    """
    budget, choice = recipe.student.budget_ms, kept_choice(shop.run.path)
    took = fastest_ms(exported_files(files), shop.device)
    if budget is None or choice is None or took is None or took <= budget:
        return None
    shop.progress.note(
        f"the exported file is predicted to take {took:.2f} ms, over the budget of {budget:g}: "
        "looking for a smaller student"
    )
    # It takes as much longer than its operators were predicted to take as the last one did.
    allowed = choice.chosen.median_ms * budget / took
    try:
        return _workshop(
            recipe,
            shop.device,
            shop.run,
            shop.progress,
            shop.torch_device,
            allowed_ms=allowed,
        )
    except RecipeError as nothing:
        shop.progress.note(str(nothing))
        return None


def train(
    recipe: Recipe, folder: Path, *, progress: Progress, torch_device: torch.device
) -> tuple[Path, Assessment]:
    """Trains the recipe's student on annotation alone; returns its checkpoint and its row."""
    device = load_device(recipe.target)
    with _run_folder("train", recipe, device, folder, progress) as run:
        shop = _workshop(recipe, device, run, progress, torch_device, with_teacher=False)
        checkpoint = _train(shop, "train", {}, recipe.distill.training)
        assessment = Assessment(shop.val, recipe.benchmark, device)
        _assess_checkpoint(shop, assessment, "student", shop.card.architecture, checkpoint)
        return checkpoint, assessment


def distill(shop: Workshop) -> Path:
    """Trains the student with the teacher (and without, where asked); returns its checkpoint.

    A student that is the teacher itself has nothing to learn yet: it is taken as it is.
    """
    section = shop.recipe.distill
    if shop.recipe.student.architecture == SAME:
        return _adopt(shop)
    if section.baseline:
        _train(shop, "baseline", {}, section.training)
    return _train(shop, "distill", shop.choices, section.training)


def _adopt(shop: Workshop) -> Path:
    """Returns a checkpoint of the first teacher, which is to be the student."""
    teacher = shop.teachers[0]
    if not isinstance(teacher, NetTeacher):
        raise RecipeError("student 'same': a teacher that is a model file cannot be trained")

    def work(folder: Path) -> None:
        save_net(folder / "student.safetensors", teacher.network(), shop.card)

    inputs = {"card": asdict(shop.card), "teacher": teacher.identity}
    return shop.run.stage("adopt", inputs, work) / "student.safetensors"


def _train(
    shop: Workshop, stage: str, choices: dict[str, MethodChoice], options: FitOptions
) -> Path:
    def work(folder: Path) -> None:
        net = shop.fresh_student()
        tapped = TappedNet(net, net.taps).train()  # type: ignore[arg-type]
        curve = fit_student(shop, tapped, choices, options, folder=folder, title=stage)
        save_net(folder / "student.safetensors", net.cpu().eval(), shop.card)
        write_atomic(folder / "curve.json", json.dumps(curve))

    start = shop.recipe.student.checkpoint
    inputs = {
        **shop.identity(options),
        "teaching": shop.teaching_identity() if choices else None,
        "start": sha256_of(start) if start else None,
        "source": _source_hash(shop),
    }
    return shop.run.stage(stage, inputs, work) / "student.safetensors"


def _source_hash(shop: Workshop) -> str | None:
    """Returns the hash of the file that defines a network of the user's own."""
    return sha256_of(Path(shop.source.rpartition(":")[0])) if shop.source else None


def quantize(shop: Workshop, student: Path) -> tuple[Path, Path | None]:
    """Makes the student integer; returns the states of its folded float graph and of its QAT graph.

    The second is None in a run without int8.

    The float graph is trained for the same extra steps with the same teacher, but without
    fake-quantization: what int8 costs is measured against that.
    """
    section = shop.recipe.quantize
    choices = shop.choices
    trains = section.mode == "qat"
    options = replace(section.training, precision="float32")
    # A student that learnt from annotation alone, or is the teacher itself, has none.
    learnt = next(iter(student.parent.glob(LEARNT)), None) if choices else None

    def continue_float(folder: Path) -> None:
        graph = shop.folded(student)
        if trains and section.float_control:
            graphs.training_mode(graph)
            curve = fit_student(
                shop, graph, choices, options, folder=folder, title="float", learnt=learnt
            )
            write_atomic(folder / "curve.json", json.dumps(curve))
        save_graph(folder / "graph.safetensors", graph)

    def make_integer(folder: Path) -> None:
        graph = graphs.prepared(shop.folded(student), shop.device.quantization)
        graphs.calibrate(graph, calibration_batches(shop))
        if trains:
            graphs.training_mode(graph)
            curve = fit_student(
                shop,
                graph,
                choices,
                options,
                folder=folder,
                title="QAT",
                freeze_ranges_at=round(section.freeze_ranges * options.steps),
                learnt=learnt,
            )
            write_atomic(folder / "curve.json", json.dumps(curve))
        save_graph(folder / "graph.safetensors", graph)

    inputs = {
        **shop.identity(section),
        "student": sha256_of(student),
        "learnt": sha256_of(learnt) if learnt else None,
        "teaching": shop.teaching_identity() if choices else None,
        "source": _source_hash(shop),
    }
    scheme = {"scheme": to_mapping(shop.device.quantization)}
    floating = shop.run.stage("float", inputs, continue_float)
    if section.mode == "none":
        return floating / "graph.safetensors", None
    integer = shop.run.stage("quantize", inputs | scheme, make_integer)
    return floating / "graph.safetensors", integer / "graph.safetensors"


def steer(shop: Workshop, student: Path, floating: Path, integer: Path) -> tuple[str, ...]:
    """Returns the layers that stay in float: those that the recipe names, or that tuning finds."""
    if not shop.recipe.quantize.tune:
        return shop.recipe.quantize.keep_float

    def work(folder: Path) -> None:
        kept = steered(shop, student, floating, integer, folder)
        write_atomic(folder / "kept.json", json.dumps(kept))

    inputs = {
        "floating": sha256_of(floating),
        "integer": sha256_of(integer),
        "device": to_mapping(shop.device),
        "images": shop.recipe.quantize.tuning_images,
        "max_map_drop": shop.recipe.gates.max_map_drop,
        "train": fingerprint(shop.train),
        "edgekd": edgekd.__version__,
    }
    folder = shop.run.stage("tune", inputs, work)
    return tuple(json.loads((folder / "kept.json").read_text(encoding="utf-8")))


def analyse(
    recipe: Recipe, folder: Path, *, progress: Progress, torch_device: torch.device
) -> tuple[LayerReport, ...]:
    """Returns what int8 does at each layer, and what float would cost there.

    Runs the path as far as it has to; raises what `compress` raises.
    """
    with _opened(recipe, folder, progress, torch_device) as shop:
        student = distill(shop)
        _, integer = quantize(shop, student)
        if integer is None:
            raise RecipeError("quantize.mode none: there is no int8 to analyse")
        return analysed(shop, student, integer)


def export(
    shop: Workshop,
    student: Path,
    floating: Path,
    integer: Path | None,
    kept: tuple[str, ...] = (),
) -> Path:
    """Writes the files and proves them as shipped; returns their folder.

    ``kept`` are the layers that stay in float.

    Raises:
        ProofError: A proof failed; the message names the first operator that breaks.
    """

    def work(folder: Path) -> None:
        for judged in ("report", "bundle"):  # Of the files that are replaced here.
            shop.run.discard(judged)
        built = _graphs(shop, student, floating, integer, kept)
        if shop.recipe.export.neural_compressor:
            shop.progress.note("quantizing with neural-compressor, for comparison")
            built = replace(built, peer=_peer(shop, built.floating))
        artifacts = export_files(
            built,
            shop.card,
            shop.device,
            shop.recipe.export,
            folder=folder,
            recipe_sha256=making(shop.recipe),
            note=shop.progress.note,
        )
        images = proof_images(shop)
        shop.progress.note(f"proving the files on {len(images)} images in every runtime")
        trained = None
        if built.integer is not None and built.complete is not None:
            trained = Placements(target=built.integer, complete=built.complete)
        checks = prove(artifacts, trained, shop.device, images)
        listed = [to_mapping(replace(a, path=Path(a.path.name))) for a in artifacts]
        write_atomic(folder / "artifacts.json", json.dumps(listed, indent=1))
        write_atomic(folder / "checks.json", json.dumps([to_mapping(c) for c in checks], indent=1))
        require_passed(checks)

    inputs = {
        "floating": sha256_of(floating),
        "integer": sha256_of(integer) if integer else None,
        "kept": kept,
        "device": to_mapping(shop.device),
        "recipe": making(shop.recipe),
        "val": fingerprint(shop.val),
        "edgekd": edgekd.__version__,
    }
    return shop.run.stage("export", inputs, work)


def benchmark(
    shop: Workshop,
    student: Path,
    floating: Path,
    integer: Path | None,
    files: Path,
    kept: tuple[str, ...],
) -> RunRecord:
    """Measures every network and file; returns what the report is drawn from."""

    def work(folder: Path) -> None:
        artifacts = exported_files(files)
        assessment = _assess(shop, student, floating, artifacts)
        if integer is not None and readable(shop.card):
            quantized = _quantized(shop, student, integer, kept)
            assessment.predictions[TRAINED] = _predictions(
                shop, TRAINED, shop.card, _outputs_of(quantized), shop.load(student)
            )
        checks = [*_checks(files), *assessment.agreements()]
        record = RunRecord(
            name=shop.run.path.name,
            target=shop.device.id,
            task=shop.card.task,
            dataset=shop.val.name,
            rows=tuple(assessment.rows),
            comparisons=compared(assessment),
            checks=tuple(checks),
            curves=_curves(shop),
            exhibits=_exhibits(shop, assessment),
            provenance=_provenance(shop, kept),
            setbacks=_setbacks(shop, assessment),
        )
        write_atomic(folder / "record.json", to_json(record))

    inputs = {
        "files": {a.path.name: a.sha256 for a in exported_files(files)},
        "student": sha256_of(student),
        "floating": sha256_of(floating),
        "integer": sha256_of(integer) if integer else None,
        "kept": kept,
        "val": fingerprint(shop.val),
        "baseline": shop.recipe.distill.baseline,
        "sections": [to_mapping(shop.recipe.benchmark), to_mapping(shop.recipe.report)],
        "edgekd": edgekd.__version__,
    }
    folder = shop.run.stage("benchmark", inputs, work)
    return from_json((folder / "record.json").read_text(encoding="utf-8"))


def report(shop: Workshop, measured: RunRecord) -> RunRecord:
    """Judges what was measured, writes ``report.json`` and ``report.html``.

    Raises:
        ProofError: The int8 files do not decide alike.
        GateError: One of them does not keep to the recipe's gates.
    """
    record = replace(
        measured,
        gates=judge(measured, shop.recipe.gates),
        considered=choice.considered if (choice := kept_choice(shop.run.path)) else (),
    )
    text = to_json(record)

    def work(folder: Path) -> None:
        shop.run.discard("bundle")  # It belongs to the report that it was made with.
        write_atomic(folder / "report.json", text)
        write_html(record, folder / "report.html")

    shop.run.stage("report", {"record": digest(text), "edgekd": edgekd.__version__}, work)
    require_passed(record.checks)
    require_gates(record.gates)
    return record


def bundle(shop: Workshop, record: RunRecord, files: Path) -> Path:
    """Writes what firmware takes over; returns its folder."""
    name = f"{shop.run.path.resolve().name}-{shop.device.id}"

    def work(folder: Path) -> None:
        artifacts = exported_files(files)
        source = bundle_source(record, shop.recipe, shop.val, artifacts, shop.progress)
        write_bundle(source, folder / name)

    inputs = {
        "files": {a.path.name: a.sha256 for a in exported_files(files)},
        "report": sha256_of(shop.run.path / "report" / "report.json"),
        "val": fingerprint(shop.val),
        "edgekd": edgekd.__version__,
    }
    return shop.run.stage("bundle", inputs, work) / name


def _graphs(
    shop: Workshop, student: Path, floating: Path, integer: Path | None, kept: tuple[str, ...]
) -> Graphs:
    """Returns the graphs to export, rebuilt from their states, on the CPU."""
    on_cpu = replace(shop, torch_device=torch.device("cpu"))
    outputs = network_outputs(shop.load(student), shop.card)
    count = len(outputs)
    folded = graphs.only_outputs(load_graph(floating, on_cpu.folded(student)), count)
    if integer is None:
        return Graphs(folded, integer=None, complete=None, unfolded=None, outputs=outputs)
    quantized = _quantized(on_cpu, student, integer, kept)
    target, complete = graphs.placements(quantized, count)
    return Graphs(
        floating=folded,
        integer=target,
        complete=complete,
        unfolded=graphs.converted(quantized, count, fold_weights=False, complete=True),
        outputs=outputs,
        kept=kept,
    )


def _quantized(shop: Workshop, student: Path, integer: Path, kept: tuple[str, ...]) -> GraphModule:
    """Returns the fake-quantized graph as the target rounds."""
    graph = graphs.prepared(shop.folded(student), shop.device.quantization)
    return graphs.frozen(keep_float(load_graph(integer, graph), kept))


def _peer(shop: Workshop, floating: GraphModule) -> GraphModule:
    """Returns what neural-compressor's own calibration makes of the float graph, on the CPU."""
    batches = (images.cpu() for images in calibration_batches(shop))
    example = torch.zeros((2, *shop.card.input_shape[1:]))
    return quantized_by_neural_compressor(floating, batches, example)


def _assess(
    shop: Workshop, student: Path, floating: Path, artifacts: tuple[Artifact, ...]
) -> Assessment:
    assessment = Assessment(shop.val, shop.recipe.benchmark, shop.device)
    for index, teacher in enumerate(shop.teachers):
        _assess_teacher(shop, assessment, index, teacher)
    name = shop.card.architecture
    if shop.recipe.distill.baseline:
        baseline = shop.run.path / "baseline" / "student.safetensors"
        _assess_checkpoint(shop, assessment, "student-no-kd", f"{name} without KD", baseline)
    _assess_checkpoint(shop, assessment, "student", name, student)
    if shop.recipe.quantize.mode == "qat" and shop.recipe.quantize.float_control:
        net, title = shop.load(student), f"{name}, as long as QAT"
        graph = load_graph(floating, shop.folded(student))
        _assess_network(
            shop, assessment, "student-float", title, shop.card, _outputs_of(graph), net
        )
    for artifact in artifacts:
        if not artifact.has_tail:  # Proven to find the same as its twin.
            assessment.add_file(artifact, shop.progress)
    return assessment


def _assess_checkpoint(
    shop: Workshop, assessment: Assessment, key: str, name: str, checkpoint: Path
) -> None:
    net = shop.load(checkpoint).to(shop.torch_device)
    _assess_network(shop, assessment, key, name, shop.card, net, net)


def _assess_teacher(shop: Workshop, assessment: Assessment, index: int, teacher: Teacher) -> None:
    """Adds a teacher's row, at its own input; a model file has none: `edgekd eval` scores those."""
    if not isinstance(teacher, NetTeacher):
        return
    key = "teacher" if index == 0 else f"teacher-{index + 1}"
    name = f"teacher {teacher.card.architecture}"
    if shop.magnified:
        name += f" at {teacher.card.height}x{teacher.card.width}"
    forward = _outputs_of(lambda images: teacher.tapped(teacher.renormalise(images)))
    _assess_network(shop, assessment, key, name, teacher.card, forward, teacher.network())


def _assess_network(
    shop: Workshop,
    assessment: Assessment,
    key: str,
    name: str,
    card: Card,
    forward: Forward,
    net: torch.nn.Module,
) -> None:
    predictions = None
    if readable(card):
        predictions = _predictions(shop, key, card, forward, net)
    macs = cost.macs(net, card.input_shape)
    parameters = cost.parameters(net)
    assessment.add_network(key, name, predictions, parameters=parameters, macs=macs)


def _predictions(
    shop: Workshop, key: str, card: Card, forward: Forward, net: torch.nn.Module
) -> dict[int, Any]:
    return network_predictions(
        forward,
        card,
        network_outputs(net, card),
        shop.val,
        progress=shop.progress,
        title=f"accuracy {key}",
        device=shop.torch_device,
    )


def _outputs_of(tapped: Callable[[Tensor], Tapped]) -> Forward:
    """Returns what maps images to raw outputs alone, without features."""
    return lambda images: tapped(images)[0]


def _checks(files: Path) -> list[Check]:
    text = (files / "checks.json").read_text(encoding="utf-8")
    return [from_mapping(Check, c, str(files), RunError) for c in json.loads(text)]


def _curves(shop: Workshop) -> dict[str, list[dict[str, float]]]:
    """Returns the curves of what this run trained: a folder may hold stages of earlier ones."""
    recipe = shop.recipe
    names = ["baseline"] if recipe.distill.baseline else []
    names += ["distill", "float"]
    names += ["quantize"] if recipe.quantize.mode == "qat" else []
    found = {name: shop.run.path / name / "curve.json" for name in names}
    return {n: json.loads(p.read_text(encoding="utf-8")) for n, p in found.items() if p.exists()}


def _exhibits(shop: Workshop, assessment: Assessment) -> tuple[Exhibit, ...]:
    """Returns validation images with many objects, and what the models saw in them."""
    if shop.card.task is Task.CLASSIFICATION:
        return ()
    keys = [
        k
        for k in ("teacher", "student-float", "int8-tflite", "int8-onnx-host")
        if k in assessment.predictions
    ][:3]
    if not keys:
        return ()
    crowded = sorted(shop.val.samples, key=lambda s: (-len(s.boxes), s.image_id))
    step = max(1, len(crowded) // max(1, 2 * shop.recipe.report.exhibits))
    chosen = crowded[::step][: shop.recipe.report.exhibits]
    return tuple(assessment.exhibit(sample, keys) for sample in chosen)


def _setbacks(shop: Workshop, assessment: Assessment) -> tuple[Setback, ...]:
    """Returns the images that int8 made worse against the float student trained as long."""
    of = next((k for k in ("int8-tflite", "int8-onnx") if k in assessment.predictions), "")
    return assessment.setbacks(of, assessment.reference, shop.recipe.report.setbacks)


def _provenance(shop: Workshop, kept: tuple[str, ...]) -> dict[str, str]:
    packages = ["torch", "torchao", "onnx", "onnxruntime", "ai-edge-litert"]
    if Format.TFLITE in shop.recipe.export.formats:
        packages.append("litert-torch")
    return {
        "recipe": making(shop.recipe),
        "edgekd": edgekd.__version__,
        **{name: version(name) for name in packages},
        **({"layers in float": ", ".join(kept)} if kept else {}),
        "python": platform.python_version(),
        "host": f"{platform.machine()}, {torch.get_num_threads()} training threads",
        "data": f"{len(shop.train.samples)} training and {len(shop.val.samples)} validation "
        f"images, {len(shop.train.problems)} and {len(shop.val.problems)} problems",
        "seconds": ", ".join(f"{k} {v:.0f}" for k, v in shop.run.seconds.items()),
    }
