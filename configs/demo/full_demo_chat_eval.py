"""Full demo: held-out problems of every task that was taught, after each stage."""

run = "full_demo_chat_eval"
device = "cpu"
processes = 2
task_name = "identity,smalltalk,spelling,sums"
max_problems = 176
max_new_tokens = 64
batch_size = 48
