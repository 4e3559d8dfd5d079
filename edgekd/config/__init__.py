"""Recipes, device profiles and the catalogue of methods; nothing here imports torch."""
