"""Accuracy and latency of files: measured here and on boards, or predicted for a device."""
