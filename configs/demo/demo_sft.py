"""Demo, step 3: who it is, small talk, spelling and sums."""

run = "demo_sft"
device = "cpu"
processes = 2
tasks = "identity,smalltalk,spelling,sums"
task_examples = 26000
device_batch_size = 16
target_examples_per_step = 128
init_lr_frac = 1.0
eval_every = 100
