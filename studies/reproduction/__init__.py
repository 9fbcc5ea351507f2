"""The reproduction: arms, runs, measurements and claims, as docs/protocol.md fixes them."""
