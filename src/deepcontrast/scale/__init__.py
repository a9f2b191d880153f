"""Stacks bigger than memory, and more than one process: shards, their journal, and who works on them."""
