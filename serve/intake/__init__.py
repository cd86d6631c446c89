"""What strangers send: received, measured before it is decoded, refused when it is too much."""
