"""Findings as SARIF 2.1.0, which code hosts show beside a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgekd
from edgekd.rules.check import every_rule
from edgekd.rules.rule import Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "advice": "note"}


def sarif(findings: dict[Path, list[Finding]]) -> dict[str, Any]:
    """Returns a log of one run, JSON-ready: every rule, and what each file breaks."""
    known = {rule.id: place for place, rule in enumerate(every_rule())}
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.summary},
            "help": {"text": f"Source: {rule.source}"},
            "defaultConfiguration": {"level": _LEVELS[rule.level]},
        }
        for rule in every_rule()
    ]
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": known[finding.rule],
            "level": _LEVELS[finding.level],
            "message": {"text": f"{finding.where}: {finding.message}"},
            "locations": [
                {
                    "physicalLocation": {"artifactLocation": {"uri": path.as_posix()}},
                    "logicalLocations": [{"name": finding.where}],
                }
            ],
        }
        for path, found in findings.items()
        for finding in found
    ]
    driver = {"name": "EdgeKD", "version": edgekd.__version__, "rules": rules}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
