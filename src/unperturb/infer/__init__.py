"""What a trained denoiser gives: the best guess, and how good it is."""
