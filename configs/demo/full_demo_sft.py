"""Full demo: answers alone are learned, for as long as leaves something for rl to win."""

run = "full_demo_sft"
device = "cpu"
processes = 2
tasks = "identity,smalltalk,spelling,sums"
task_examples = 6000
device_batch_size = 16
target_examples_per_step = 64
init_lr_frac = 0.5
eval_every = 50
