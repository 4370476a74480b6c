"""Full demo: from text to conversations; small talk and spelling, packed into rows, beside some text."""

run = "demo_mid"
device = "cpu"
processes = 2
tasks = "smalltalk,spelling"
task_examples = 16000
replay = 0.5
device_batch_size = 8
target_examples_per_step = 16
init_lr_frac = 0.5
eval_every = 80
