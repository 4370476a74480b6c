"""Two GPUs: aggressive."""

run = "dual_gpu_aggressive"
depth = 20
device_batch_size = 14
max_seq_len = 3072
total_batch_size = 86016
eval_every = 100
eval_tokens = 2 * 86016
sample_every = 100
core_metric_every = 1000
core_metric_max_per_task = 500
activation_checkpoint = False
use_dummy_wandb = True
grad_clip = 1.0
embedding_lr = 0.2
unembedding_lr = 0.004
matrix_lr = 0.02
weight_decay = 0.0
