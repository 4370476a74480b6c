"""Two GPUs: stable 20gb."""

run = "dual_gpu_stable_20gb"
depth = 8
device_batch_size = 4
max_seq_len = 3072
total_batch_size = 24576
eval_every = 0
eval_tokens = 0
sample_every = 0
core_metric_every = 0
core_metric_max_per_task = 0
activation_checkpoint = False
use_dummy_wandb = True
grad_clip = 1.0
embedding_lr = 0.2
unembedding_lr = 0.004
matrix_lr = 0.02
weight_decay = 0.0
