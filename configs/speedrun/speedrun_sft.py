"""Speedrun: supervised fine-tuning on answers alone."""

run = "speedrun_sft"
tasks = "arc-easy,arc-challenge,gsm8k,smoltalk[:10000],identity,spelling,spellingbee"
task_examples = 1600
device_batch_size = 4
target_examples_per_step = 32
init_lr_frac = 0.02
