"""The experiment behind the savings: draws the holdout, keeps sums, estimates the effect."""
