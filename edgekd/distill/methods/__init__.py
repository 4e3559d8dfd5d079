"""The distillation methods: every module in this folder registers some, and a new one joins them.

A method is an ``nn.Module`` that takes a `DistillationBatch` and returns one scalar, unweighted.
What it learns itself (projectors, say) it builds from the level pairs it is given.
"""

import importlib
import pkgutil

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
