"""What the machine can do: memory, precision, the allocator. Torch at most, nothing of the package but words."""
