"""Measurements with peers, in one run on one machine. `make bench` prints a table and writes build/bench.jsonl."""
