"""What runs inside of a step, in whatever Python it has: nothing of repro, only the library."""
