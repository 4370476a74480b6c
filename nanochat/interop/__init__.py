"""Checkpoints of others: transformers' format out, karpathy/nanochat's files of late 2025 in."""
