"""``python -m gear_cli`` is the command ``gear``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
