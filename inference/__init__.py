"""What translation needs beyond a generator: how images too large for the memory pass its layers."""
