"""The contenders of benchmarks/speed.py: each is a process that does one piece of work per line of its input."""
