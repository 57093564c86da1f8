"""What is known to be vulnerable: a copy of an OSV database, asked without a network."""
