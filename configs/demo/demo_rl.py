"""Full demo: practise, rewarded for answers that are right; spelling has the most to win."""

run = "demo_rl"
device = "cpu"
processes = 2
tasks = "identity,smalltalk,spelling,sums"
num_iterations = 50
examples_per_step = 16
num_samples = 16
max_new_tokens = 64
device_batch_size = 64
init_lr_frac = 0.05
eval_every = 50
eval_examples = 200
eval_samples = 4
