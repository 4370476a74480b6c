"""Demo, step 1: a small vocabulary, so that most words are a few tokens whose letters can be learned."""

run = "demo_tokenizer"
vocab_size = 512
max_chars = 10 * 1000 * 1000
