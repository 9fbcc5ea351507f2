from training.fixtures import one_thread, recipe, tokenizer, trained

__all__ = ["one_thread", "recipe", "tokenizer", "trained"]
