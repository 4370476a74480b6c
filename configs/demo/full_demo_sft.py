"""Full demo: who it is, and sums with the tool: few enough of them to leave something for rl to win."""

run = "full_demo_sft"
device = "cpu"
processes = 2
tasks = "identity*3,smalltalk,spelling,sums[:800]"
task_examples = 6000
device_batch_size = 16
target_examples_per_step = 32
init_lr_frac = 0.3
eval_every = 80
