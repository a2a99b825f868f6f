"""What each trained stage adds to the training loop: one file each, all of the same shape."""
