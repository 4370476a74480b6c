"""Full demo: a few examples of CORE's tasks, those whose data is on this machine."""

run = "demo_base_eval"
device = "cpu"
processes = 2
tasks = "piqa,copa,winogrande,openbook_qa,lambada_openai"
max_per_task = 50
batch_size = 4
