"""Measurements of a model: bits per byte, accuracy on chat tasks."""
