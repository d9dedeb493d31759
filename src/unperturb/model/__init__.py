"""What is learned: perturbations, networks, and the denoisers made of them."""
