"""The tiny reasoner from scratch: its tokenizer, its model, and the thoughts it learns from."""
