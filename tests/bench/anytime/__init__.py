"""Every way of ending a thought early against the best plain cap; `make bench-anytime`."""
