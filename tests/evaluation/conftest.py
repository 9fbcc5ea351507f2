from training.fixtures import recipe, tokenizer, trained

__all__ = ["recipe", "tokenizer", "trained"]
