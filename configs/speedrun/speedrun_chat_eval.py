"""Speedrun: ChatCORE: ARC, MMLU, GSM8K, HumanEval and SpellingBee, as far as their data is here."""

run = "speedrun_chat_eval"
max_problems = -1
batch_size = 16
