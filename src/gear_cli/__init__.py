"""The command ``gear``."""
