"""What became of a result that was made again: how two outputs differ, and likely why."""
