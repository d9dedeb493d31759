"""The lab: denoising autoencoders trained in seconds, beside the exact answer, as numbers and pictures."""
