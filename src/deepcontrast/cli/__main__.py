"""``python -m deepcontrast.cli``."""

from deepcontrast.cli import main

main()
