"""Two CPU ranks over gloo: a complete run of a tiny model in about a minute."""

run = "debug_cpu"
device = "cpu"
processes = 2
depth = 2
max_seq_len = 256
device_batch_size = 4
total_batch_size = 2048
num_iterations = 100
eval_every = 50
eval_tokens = 8192
sample_every = 50
core_metric_every = 0
save_every = 50
