"""The engine: trains each stage once, on workers, and places fusion sessions."""
