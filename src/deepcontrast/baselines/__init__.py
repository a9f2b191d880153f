"""What a user would pick instead; each file one method, a function of a volume (Z, Y, X)."""
