"""Full demo: from text to conversations; small talk and spelling, packed into rows."""

run = "demo_mid"
device = "cpu"
processes = 2
tasks = "identity,smalltalk,spelling,sums"
task_examples = 12000
device_batch_size = 16
target_examples_per_step = 32
eval_every = 25
