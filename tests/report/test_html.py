from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgekd.core.errors import RunError
from edgekd.core.results import OperatorCost, RunRecord
from edgekd.core.types import Precision
from edgekd.report.html import render_html, write_html

HOSTILE = "<script>alert('$x$')</script>"
VOID = {"meta", "br", "img", "path", "use", "rect"}


class Page(HTMLParser):
    """Tags, attributes, ids and table cells of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.tags if attribute in found]


@pytest.fixture
def text(record: RunRecord) -> str:
    return render_html(record)


@pytest.fixture
def page(text: str) -> Page:
    return Page(text)


def test_every_figure_is_shown(text: str) -> None:
    figures = (
        "44.82", "65.95", "46.09", "34.51", "52.23", "35.75", "51.15", "54.81", "287",
        "36.12", "41.24", "39.98", "27.89",  # accuracy, per class
        "9,812,004", "4,120,114,176", "39,248,016", "1,048,733", "391,274,496", "1,205,440",
        "9.81 M", "1.05 M", "37.4 MiB", "1.15 MiB", "32.6 times",
        "2.96", "3.34", "4.17", "0.417", "0.288", "200", "load 0.12",  # measured
        "11.9", "[7.28, 20.5]", "28.3", "[17.3, 48.7]", "predicted, uncalibrated",
        "+2.44 points [+1.31, +3.62]", "-0.66 points [-1.17, -0.19]", "95 %",
        "99.81 %", "97.31", "95.27", "4.54", "0.13", "0.06", "12.20",  # proofs, histogram
        "3f1c9a0e", "812.4", "3 degenerate-box", "runs/traffic/export/int8-onnx.onnx",
    )  # fmt: skip
    assert [figure for figure in figures if figure not in text] == []


def test_page_asks_for_nothing_outside_itself(text: str, page: Page) -> None:
    for attribute in ("src", "href", "xlink:href", "srcset", "action", "data"):
        for value in page.values(attribute):
            assert value.startswith(("#", "data:image/jpeg;base64,")), value
    assert not re.search(r"@import|url\((?!#)", text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}


def test_ids_are_unique_and_every_reference_finds_one(text: str, page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = page.values("href") + page.values("xlink:href")
    wanted += [f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", text)]
    wanted += [f"#{name}" for name in page.values("aria-labelledby")]
    assert {value[1:] for value in wanted if value.startswith("#")} <= set(ids)


def test_measured_and_predicted_stand_in_columns_of_their_own(page: Page) -> None:
    header = next(row for row in page.rows if "MACs" in row and "Parameters" in row)
    line = next(row for row in page.rows if row[0].startswith("Student int8 TFLite"))
    cells = dict(zip(header, line, strict=True))
    assert cells["Measuredmedian ms"] == "2.96"
    assert cells["Measuredp90 ms"] == "3.34"
    assert cells["Predicted ms forraspberry-pi-4"] == "11.9 [7.28, 20.5] predicted, uncalibrated"


def test_prediction_in_the_measured_field_is_refused(record: RunRecord) -> None:
    row = replace(record.rows[-1], measured=record.rows[-1].predicted)
    with pytest.raises(RunError, match="predicted latency where a measured one belongs"):
        render_html(replace(record, rows=(row,)))


def test_failed_proof_says_so_in_words_and_names_its_culprit(page: Page) -> None:
    line = next(row for row in page.rows if row[1:2] == ["parity/operators/onnx"])
    assert line[0] == "FAIL"
    assert "first at /neck/level2/Resize_1" in line[2]
    passed = next(row for row in page.rows if row[1:2] == ["conformance/tflite"])
    assert passed[0] == "PASS"


def test_hostile_names_stay_text(record: RunRecord) -> None:
    metrics = record.rows[-1].metrics
    assert metrics is not None
    rows = tuple(
        replace(row, name=HOSTILE, metrics=replace(metrics, per_class={HOSTILE: 0.3}))
        for row in record.rows
    )
    checks = tuple(
        replace(check, failing_operator=HOSTILE, details={"histogram": {HOSTILE: {"0": 1.0}}})
        for check in record.checks
    )
    visualisations = tuple(
        replace(visualisation, classes=(HOSTILE,) * len(visualisation.classes))
        for visualisation in record.visualisations
    )
    curves = {HOSTILE: record.curves["teacher"]}
    hostile = replace(
        record,
        name=HOSTILE,
        target=HOSTILE,
        rows=rows,
        checks=checks,
        visualisations=visualisations,
        curves=curves,
        provenance={HOSTILE: HOSTILE},
    )
    text = render_html(hostile)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(") > 40
    Page(text)


def test_same_record_gives_the_same_bytes(record: RunRecord, tmp_path: Path) -> None:
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    write_html(record, first)
    write_html(record, second)
    assert first.read_bytes() == second.read_bytes()
    assert not re.search(r"20\d\d-\d\d-\d\d", first.read_text(encoding="utf-8"))


def test_every_picture_has_words(page: Page) -> None:
    pictures = [found for tag, found in page.tags if tag == "img"]
    assert len(pictures) == 4
    assert pictures[-1]["alt"] == "frame.jpg, Student int8 TFLite: nothing"
    drawings = [found for tag, found in page.tags if tag == "svg"]
    assert len(drawings) == 6
    assert all(found["role"] == "img" and found["aria-label"] for found in drawings)


def test_predictions_are_drawn_by_operator_and_for_every_profile(record: RunRecord) -> None:
    *others, shipped = record.rows
    cost = OperatorCost(
        name="head/conv", native="CONV_2D", precision=Precision.INT8, output=(1, 8, 8, 4),
        ms=7.5, share=1.0, cheaper="",
    )  # fmt: skip
    assert shipped.predicted is not None
    known = replace(shipped, everywhere=(shipped.predicted,), operators=(cost,))
    text = render_html(replace(record, rows=(*others, known)))
    words = re.findall(r'aria-label="(Predicted latency (?:by|on)[^"]*)"', text)
    assert words == [
        "Predicted latency by operator of Student int8 TFLite. CONV_2D 1x8x8x4 int8: 7.5 ms",
        "Predicted latency on every device profile, the fastest file of each: "
        "raspberry-pi-4: 11.9 ms",
    ]
    assert "Student int8 TFLite, 36.12 points" in text


def test_times_of_two_machines_share_no_plot(record: RunRecord) -> None:
    latency = record.rows[0].measured
    assert latency is not None
    moved = replace(record.rows[0], measured=replace(latency, where="jetson-nano"))
    text = render_html(replace(record, rows=(moved, *record.rows[1:])))
    plots = re.findall(r'aria-label="(Accuracy against latency[^"]*)"', text)
    assert len(plots) == 2
    assert "measured on jetson-nano" in plots[0]
    assert "Student" not in plots[0]


def test_page_for_classification_shows_top1_and_leaves_out_what_was_not_done(
    classification_record: RunRecord,
) -> None:
    text = render_html(classification_record)
    page = Page(text)
    for shown in ("Top-1", "91.37", "Top-5", "99.63", "94.62", "78,666"):
        assert shown in text
    assert "mAP" not in text
    assert not {"proofs", "training", "detections", "latency"} & set(page.values("id"))


def test_lost_image_is_named(record: RunRecord, picture: Path) -> None:
    picture.unlink()
    with pytest.raises(RunError, match=r"frame\.jpg: cannot read the image"):
        render_html(record)


def test_stage_without_losses_has_no_plot(record: RunRecord) -> None:
    text = render_html(replace(record, curves={"idle": [], "counted": [{"step": 1.0}]}))
    assert 'id="training"' not in text


def test_heavy_libraries_wait_until_a_page_is_drawn() -> None:
    code = (
        "import sys, edgekd.report.html, edgekd.report.terminal, edgekd.report.record;"
        "print(sorted({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
