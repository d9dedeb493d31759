"""Denoising autoencoders: trained on any data, under any perturbation."""
