"""Speedrun: reinforcement learning on the problems of GSM8K, with the calculator."""

run = "speedrun_rl"
tasks = "gsm8k"
examples_per_step = 16
num_samples = 16
max_new_tokens = 256
device_batch_size = 8
eval_every = 60
save_every = 60
