"""Demo, step 2: under two minutes of pretraining on 2 CPU cores."""

run = "demo_base"
device = "cpu"
processes = 2
depth = 4
max_seq_len = 256
device_batch_size = 16
total_batch_size = 2 * 16 * 256
num_iterations = 80
warmdown_ratio = 0.3
eval_every = 80
eval_tokens = 8 * 2 * 16 * 256
sample_every = 80
core_metric_every = 0
