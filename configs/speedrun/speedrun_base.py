"""Speedrun, step 2: depth 20 (561 million parameters) on 20 tokens for each parameter; GPUs."""

run = "speedrun_base"
data = "fineweb-edu"
depth = 20
max_seq_len = 2048
device_batch_size = 16
total_batch_size = 524288
target_param_data_ratio = 20
eval_every = 250
eval_tokens = 20 * 524288
core_metric_every = 2000
core_metric_max_per_task = 500
sample_every = 2000
save_every = 2000
