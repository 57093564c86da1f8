"""The report of an audit, written for people, programs, code scanners and test servers."""
