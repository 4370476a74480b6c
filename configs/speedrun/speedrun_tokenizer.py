"""Speedrun, step 1: 65,536 tokens from two billion characters.

Fetch the text first: `python -m nanochat.dataset -n 240 --source fineweb-edu` (24 GB); what is missing
is not fetched by itself beyond the first shards.
"""

run = "speedrun_tokenizer"
data = "fineweb-edu"
vocab_size = 65536
max_chars = 2 * 1000 * 1000 * 1000
