"""Full demo: three minutes of pretraining on 2 CPU cores, in small steps."""

run = "full_demo_base"
device = "cpu"
processes = 2
depth = 4
max_seq_len = 256
device_batch_size = 8
total_batch_size = 2 * 8 * 256
num_iterations = 240
warmdown_ratio = 0.4
eval_every = 120
eval_tokens = 8 * 2 * 16 * 256
sample_every = 120
core_metric_every = 0
