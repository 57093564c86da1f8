"""The rules, by letter. Each is one function from facts to what it noticed; `table` lists all."""
