"""What SQL targets are made of: addresses and names, shared engines, markers, rows on their way in."""
