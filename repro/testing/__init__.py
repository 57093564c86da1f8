"""For those who extend repro: what a backend has to fulfil, and a backend that runs nothing."""
