"""Two GPUs: the plain starting point."""

run = "dual_gpu_distributed"
depth = 16
device_batch_size = 16
max_seq_len = 2048
total_batch_size = 524288
eval_every = 50
use_dummy_wandb = True
