"""What ``gear.Server`` is made of."""
