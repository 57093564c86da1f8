"""What a step may see, write and reach, and the means of this machine to keep it to that."""
