"""The same measurements of other programs that run jobs, as their users would use them, where they are installed."""
