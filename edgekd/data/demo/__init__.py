"""The built-in detection set: rendered traffic seen from a drone."""
