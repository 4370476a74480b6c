"""Full demo: practise sums, rewarded for answers that are right."""

run = "demo_rl"
device = "cpu"
processes = 2
tasks = "sums"
num_iterations = 60
examples_per_step = 16
num_samples = 16
max_new_tokens = 48
device_batch_size = 64
init_lr_frac = 0.03
eval_every = 60
eval_examples = 200
eval_samples = 4
