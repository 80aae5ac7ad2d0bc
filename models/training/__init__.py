"""How a network of the family is trained, whatever its paper."""
