"""tools/bench in parts: how fast meeseeks is, against the bare processes of the machine it runs on."""
