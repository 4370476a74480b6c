"""Speedrun: one epoch of conversations, multiple choice and arithmetic (`nanochat data get` fetches them)."""

run = "speedrun_mid"
tasks = "smoltalk,mmlu,gsm8k,identity,spelling,spellingbee"
task_examples = 80000
device_batch_size = 16
total_batch_size = 524288
eval_every = 150
