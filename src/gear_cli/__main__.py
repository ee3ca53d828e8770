"""``python -m gear_cli`` is the command ``gear``."""

from .main import run

if __name__ == "__main__":
    run()
