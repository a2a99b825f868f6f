"""Published weights of fusion models, under our names."""
