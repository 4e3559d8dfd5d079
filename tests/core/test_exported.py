from __future__ import annotations

from edgekd.core.exported import EXPORTED, form_of


def test_names_keys_and_titles_are_unique_and_a_name_tells_its_format() -> None:
    for attribute in ("name", "key", "title"):
        values = [getattr(file, attribute) for file in EXPORTED]
        assert len(set(values)) == len(values)
    assert all(file.name.endswith(f".{file.format.value}") for file in EXPORTED)


def test_a_row_of_a_network_counts_as_what_ships() -> None:
    assert [form_of(key) for key in ("student", "int8-onnx-host", "int8-onnx-nc")] == [
        "board",
        "host",
        "peer",
    ]
