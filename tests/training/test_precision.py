from __future__ import annotations

import pytest
import torch

from edgekd.training import precision as module
from edgekd.training.precision import autocast, has_bfloat16, resolved

CPU = torch.device("cpu")


INTEL, AMD = "GenuineIntel", "AuthenticAMD"


@pytest.fixture(
    params=[
        ({"avx2"}, AMD, False),
        ({"avx512_bf16"}, AMD, True),
        ({"avx512_bf16"}, INTEL, False),
        ({"avx512_bf16", "amx_bf16"}, INTEL, True),
        ({"bf16"}, "", False),
    ],
    ids=["emulated", "amd", "intel", "intel-amx", "arm"],
)
def native(request, monkeypatch) -> bool:
    features, vendor, computes = request.param
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"fpu", *features}))
    monkeypatch.setattr(module, "cpu_vendor", lambda: vendor)
    return computes


def test_auto_takes_bfloat16_only_where_the_processor_computes_in_it(native):
    assert has_bfloat16(CPU) is native
    assert resolved(CPU, "auto") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_what_is_asked_for_is_what_is_computed(native, asked):
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, asked):
        assert layer(torch.ones(1, 4)).dtype == getattr(torch, asked)


def test_auto_computes_in_what_it_resolves_to(native):
    layer = torch.nn.Linear(4, 4)
    with autocast(CPU, "auto"):
        assert layer(torch.ones(1, 4)).dtype == (torch.bfloat16 if native else torch.float32)


def test_other_devices_are_not_taken_for_this_processor(native):
    assert not has_bfloat16(torch.device("meta"))
