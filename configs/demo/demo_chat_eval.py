"""Demo, step 4: held-out problems, before and after the fine-tuning."""

run = "demo_chat_eval"
device = "cpu"
processes = 2
task_name = "identity,smalltalk,spelling,sums"
max_problems = 64
max_new_tokens = 64
batch_size = 32
compare_parent = True
