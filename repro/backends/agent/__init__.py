"""Jobs on machines where repro is not installed: the program that goes there, and its carriage."""
