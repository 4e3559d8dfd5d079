"""The distillation methods: every module in this folder registers some, and a new one joins them.

A method is an ``nn.Module`` that takes a `DistillationBatch` and returns one scalar, unweighted.
What it learns itself (projectors, say) it builds from the level pairs it is given.
"""
