"""From problems to rows of tokens: sampling, the plans of the methods, packing."""
