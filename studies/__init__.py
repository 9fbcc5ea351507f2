"""Reproductions: outside the wheel, they use Ponder as anybody's program would."""
