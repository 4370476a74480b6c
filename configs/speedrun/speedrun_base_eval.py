"""Speedrun: CORE of the base model, all examples of every task that is here."""

run = "speedrun_base_eval"
max_per_task = -1
batch_size = 32
