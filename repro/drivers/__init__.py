"""Steps whose code runs other steps: what they ask for is done outside of them, as steps."""
