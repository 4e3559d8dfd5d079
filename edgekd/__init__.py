"""Distil, quantize, export and prove compact vision models for edge devices."""

__version__ = "0.1.0"
