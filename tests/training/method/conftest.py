from training.rollout.conftest import reader

__all__ = ["reader"]
