"""`python -m unperturb`."""

from unperturb.app.cli import main

main()
