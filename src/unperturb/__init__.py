"""Denoising autoencoders: trained on any data, under any perturbation."""

__version__ = "0.1.0"
