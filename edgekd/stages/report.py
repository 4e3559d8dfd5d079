"""What was measured, judged by the recipe's gates and written down for people and machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edgekd
from edgekd.core.files import write_atomic
from edgekd.core.results import RunRecord
from edgekd.proof.prove import require_passed
from edgekd.report.gates import judge, require_gates
from edgekd.report.html import write_html
from edgekd.report.record import to_json
from edgekd.run.context import RunContext
from edgekd.run.directory import RunDirectory, digest
from edgekd.run.student_search import kept_choice


def report(context: RunContext, measured: RunRecord) -> RunRecord:
    """Returns the record of the whole run, after writing ``report.json`` and ``report.html``.

    Raises:
        ProofError: The int8 files do not decide alike.
        GateError: One of them does not keep to the recipe's gates.
    """
    choice = kept_choice(context.directory.path)
    record = replace(
        measured,
        gates=judge(measured, context.recipe.gates),
        considered=choice.considered if choice else (),
    )
    context.directory.complete(Report(context.directory, record))
    require_passed(record.checks)
    require_gates(record.gates)
    return record


@dataclass(frozen=True, slots=True)
class Report:
    """The record, as JSON and as one HTML file."""

    directory: RunDirectory
    record: RunRecord
    name: str = "report"

    def inputs(self) -> dict[str, Any]:
        """Returns what both files depend on."""
        return {"record": digest(to_json(self.record)), "edgekd": edgekd.__version__}

    def work(self, folder: Path) -> None:
        """Writes both."""
        self.directory.discard("bundle")  # It belongs to the report that it was made with.
        write_atomic(folder / "report.json", to_json(self.record))
        write_html(self.record, folder / "report.html")
