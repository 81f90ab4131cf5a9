"""``python -m smoothcluster``: the same as the command ``smoothcluster``."""

from smoothcluster.cli import main

if __name__ == "__main__":  # pragma: no branch
    main()
