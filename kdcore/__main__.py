"""Run the command line as ``python -m kdcore``, and so with ``torchrun -m kdcore``."""

from kdcore.cli.main import main

main()
