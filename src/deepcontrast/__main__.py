"""``python -m deepcontrast``."""

from deepcontrast.cli import main

main()
