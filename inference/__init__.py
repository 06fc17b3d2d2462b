"""What translation needs beyond a generator: tiles for images too large for the memory."""
