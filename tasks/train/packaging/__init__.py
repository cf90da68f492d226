"""What makes a package: cards, parity checks, smaller forms."""
