"""What steps log: the loopback server that takes their calls, and the mirror to a real one."""
