"""``python -m rayseg <job>``, as a cluster runs it from a working directory."""

from rayseg.cli import main

if __name__ == "__main__":
    main()
