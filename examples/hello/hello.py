"""Write a greeting to a file."""

import sys
from pathlib import Path

greeting = f"hello, {sys.argv[1]}"
Path("greeting.txt").write_text(greeting + "\n")
print(greeting)
