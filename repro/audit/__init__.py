"""What keeps a project from being reproduced: rules over facts, with nothing looked up."""
